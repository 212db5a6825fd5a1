"""`realize.cli.late_patterns`: patterns that no command uses are not compiled."""

import textwrap

from tests.processes import printed

START = "import re, sys\nfrom realize.cli.stand_ins import stand_in\nstand_in()\nfrom cryptography import x509\n"


def run(code):
    """What a new process prints that has loaded certificates as a command does."""
    return printed(START + textwrap.dedent(code))


def test_an_identity_compiles_no_pattern_of_names():
    """Its certificate has a name, which is made and not read."""
    assert ["CN=realize", "True", "True"] == run(
        """
        from realize.cli.late_patterns import _Pattern
        from realize.keys import generate_identity

        print(generate_identity().certificate.subject.rfc4514_string())
        patterns = [each for each in vars(x509.name._RFC4514NameParser).values() if type(each) is _Pattern]
        given = {each._given for each in patterns}
        print(len(given) >= 5, not any((str, *each) in re._cache for each in given))
        """
    )


def test_who_reads_a_name_gets_it():
    """By the real patterns; all that the parser asks of them is there."""
    assert ["True", "refused"] == run(
        r"""
        text = r"CN=a\,b \c3\bc \+,1.2.840.113549.1.9.1=#0c0161,O=Öl"
        name = x509.Name.from_rfc4514_string(text)
        print(name == x509.Name.from_rfc4514_string(name.rfc4514_string()) and len(list(name)) == 3)
        try:
            x509.Name.from_rfc4514_string("no name")
        except ValueError:
            print("refused")
        """
    )


def test_others_compile_at_once():
    """Before and after, and whoever loads the module in another program."""
    assert ["True", "True"] == run(
        """
        print(type(re.compile("a pattern of somebody else")) is re.Pattern)
        try:
            re.compile("(")
        except re.error:
            print(True)
        """
    )


def test_a_configuration_of_texts_compiles_no_pattern():
    """Its peers and paths are texts; who has numbers, dates or times in it gets them by the real patterns."""
    assert ["0", "3", "1979", "07:32:00", "16", "1.5"] == run(
        """
        import tomllib

        from realize.cli.late_patterns import _Pattern

        patterns = [each for each in vars(tomllib._re).values() if type(each) is _Pattern]
        compiled = lambda: sum((str, *each._given) in re._cache for each in patterns)
        tomllib.loads('key = "command.key"\\n[peers.nas]\\nkeys = ["one", "two"]\\nold = true')
        print(compiled())
        read = tomllib.loads("date = 1979-05-27T07:32:00Z\\ntime = 07:32:00\\nhex = 0x10\\nnumber = 1.5")
        print(compiled())
        print(read["date"].year, read["time"], read["hex"], read["number"])
        """
    )
