"""The embedded world: procedural clips whose true edits are known, and small models trained on them."""
