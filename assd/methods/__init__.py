"""Editing methods: siblings behind one contract, `assd.methods.method.Method`."""
