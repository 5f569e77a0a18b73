"""The commands of the command line, one file each; importing one costs nothing but argparse."""
