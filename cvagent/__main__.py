"""`python -m cvagent`: without arguments, run the mode that CVAGENT_MODE names."""

import sys

from cvagent.cli import main

if __name__ == "__main__":
    main(sys.argv[1:] or ["run"], prog_name="cvagent")
