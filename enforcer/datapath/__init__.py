"""The kernel side: programs loaded and attached, the bytes of maps, what packets left behind."""
