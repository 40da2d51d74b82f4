"""The LSTM next-item model: the only home of torch; arrays in, arrays out."""
