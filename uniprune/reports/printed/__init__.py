"""The literature side by side: numbers that papers print, each with its source, spread and doubts."""
