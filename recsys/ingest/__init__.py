"""Files and request bodies -> checked events and items, and the rejected rows with their reasons."""
