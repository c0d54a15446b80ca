"""The console: pages for people, without scripts; an OpenID provider says who they are."""
