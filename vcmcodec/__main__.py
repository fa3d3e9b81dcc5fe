"""`python -m vcmcodec` is `vcm`."""

from vcmcodec.cli.main import vcm

if __name__ == "__main__":
    vcm(prog_name="vcm")
