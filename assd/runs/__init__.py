"""The run directory, the interface between editing, evaluation and tables: its one writer and its one reader."""
