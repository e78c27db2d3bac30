"""A chart's hooks: is an installation sound, and taking Ringfence out again."""
