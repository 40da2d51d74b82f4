"""What an event is: the frame of events, ordered sequences, time split, vocabulary; numpy and pyarrow, no torch, no SQL."""
