"""Files and bodies of other people's making -> checked events and items, and the rows that are none."""
