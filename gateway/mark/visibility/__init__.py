"""What may be seen: display values, the region a mark may lie in, how much each pixel may change, and its figures."""
