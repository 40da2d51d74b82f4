"""What the people who run the shop decide about answers: no SQL, no Flask, no torch."""
