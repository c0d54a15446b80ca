"""Wire messages: what travels between a party and the server, one file for each step."""
