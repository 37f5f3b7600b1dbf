"""The command line: parse, build objects, print. Holds no rule."""
