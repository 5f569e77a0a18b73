"""What is found inside the model, told: sentences, tables, plots, pictures, and the journey."""
