"""What is checked of an installation and of a device, before anybody relies on them."""
