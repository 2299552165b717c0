"""The service's HTTP interface: what requests and answers look like, and one file of routes a resource."""
