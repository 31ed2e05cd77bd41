"""A fleet: classes of hosts, who can send to whom, who can come back; knows no HTTP and no HTML."""
