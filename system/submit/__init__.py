"""From a laptop to a cluster: what is submitted, under which name, and what is seen of it. Needs no more than Ray."""
