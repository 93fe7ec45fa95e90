"""What a monitor run looks at besides drift: labels, quality, slices, health of the data, skew."""
