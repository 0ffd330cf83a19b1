"""How long requests and their parts take, on this machine and over the network."""
