"""Scores of edited videos. It reads run directories and never re-runs the editor."""
