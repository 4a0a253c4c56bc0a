"""--format: what Go's text/template prints for the same, and one line for what is not understood."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import UsageError
from runtime.gotemplate import render

VALUE = {
    "Id": "sha256:abc", "Size": 12, "On": True, "Off": False, "None": None, "Tags": ["b", "a"], "Empty": [],
    "Config": {"Labels": {"x.y": "z", "k": "v"}, "Cmd": ["sh", "-c"]}, "Mounts": [{"Name": "m", "RW": True}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("{{.Id}}", "sha256:abc"),
        ("{{ .Id }} {{.Size}}", "sha256:abc 12"),
        ("a {{- .Size -}} b", "a12b"),
        ("{{.On}}{{.Off}}{{.None}}", "truefalse<no value>"),
        ("{{.Tags}} {{.Config.Labels}}", "[b a] map[k:v x.y:z]"),
        ("{{json .Tags}}", '["b","a"]'),
        ("{{.Config.Cmd | json}}", '["sh","-c"]'),
        ('{{index .Config.Labels "x.y"}}', "z"),
        ('{{index .Config.Labels "none"}}', ""),
        ("{{index .Tags 1}}", "a"),
        ('{{join .Tags ", "}}', "b, a"),
        ("{{len .Tags}}", "2"),
        ("{{upper .Id}}", "SHA256:ABC"),
        ("{{range .Tags}}<{{.}}>{{end}}", "<b><a>"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range .Mounts}}{{.Name}}{{if .RW}}!{{end}}{{end}}", "m!"),
        ("{{if .Off}}yes{{else}}no{{end}}", "no"),
        ("{{with .Config}}{{.Cmd}}{{end}}", "[sh -c]"),
        ('{{if eq .Size 12}}dozen{{end}}{{if ne .Id "x"}}!{{end}}', "dozen!"),
        ("{{println .Size}}", "12\n"),
        (r"{{.Size}}\t{{.On}}", "12\ttrue"),
        ("{{/* nothing */}}", ""),
        ("{{`raw`}}", "raw"),
    ],
)
def test_what_go_prints(template: str, text: str) -> None:
    assert render(template, VALUE) == text


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{.Nothing}}", "no field '.Nothing'"),
        ("{{.Id", "without }}"),
        ("{{end}}", "without a beginning"),
        ("{{if .On}}", "without {{end}}"),
        ("{{frob .Id}}", "unknown function 'frob'"),
        ("{{}}", "nothing to do"),
        ("{{index .Tags 7}}", "not with these arguments"),
        ("{{range .Size}}{{end}}", "no list"),
        ('{{"open}}', "without its end"),
        ("{{$x := 1}}", "unknown function"),
        ("{{if .On}}" * 100, "too deep"),
    ],
)
def test_what_is_not_understood_is_said(template: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        render(template, VALUE)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.lists(st.sampled_from(["{{", "}}", ".Id", ".Tags", "range ", "if ", "end", "|", "json", '"', "x", " "])))
def test_any_template_is_rendered_or_refused(pieces: list[str]) -> None:
    try:
        render("".join(pieces), VALUE)
    except UsageError:
        pass


def test_a_method_of_what_is_rendered() -> None:
    class Row(dict[str, str]):
        methods = {"Label": {"a.b": "c"}.get}

    row = Row(ID="1")
    assert render('{{.ID}} {{.Label "a.b"}}', row) == "1 c"
    for template in ('{{.Nosuch "a"}}', '{{.ID "a"}}'):
        with pytest.raises(UsageError, match="no method"):
            render(template, row)
