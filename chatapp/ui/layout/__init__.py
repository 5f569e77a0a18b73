"""How a message becomes lines: plain values that the transcript draws. No widgets here."""
