"""Stands for the SDK of this name: its public names, as flamepy has them."""

import flamepy.flash.names

flamepy.flash.names.serve(__name__)
