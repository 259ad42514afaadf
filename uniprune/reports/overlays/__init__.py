"""Kept visual tokens drawn over pictures: sheets of panels, animations, and a page with sliders."""
