"""How text is generated. The only code that imports torch or transformers."""
