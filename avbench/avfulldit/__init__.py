"""AVFullDiT."""
