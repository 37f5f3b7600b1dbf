"""The page of a bundle: one self-contained HTML file that works offline."""
