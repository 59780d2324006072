"""How much a site can do: what one instance costs here, and what that means for replicas, devices and years."""
