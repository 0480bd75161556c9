"""uic.yaml: defaults, environment, and errors that name the field."""

import pytest
import yaml
from typer.testing import CliRunner

from uic.jobs.cli import app
from uic.jobs.commands.config import yaml_lines
from uic.jobs.config.config import Config, load_config
from uic.jobs.drills.hostile.small_rows import HOSTILE_SETTINGS
from uic.models.errors import BadInputError


def write(tmp_path, text):
    path = tmp_path / "uic.yaml"
    path.write_text(text)
    return path


def test_defaults_are_the_papers():
    config = load_config(None)
    assert (config.samples.window_days, config.samples.history_cap) == (60, 1000)


def test_a_file_wins_over_defaults_and_the_environment_over_the_file(tmp_path, monkeypatch):
    path = write(tmp_path, "log: {partitions: 8, max_event_age_days: 3}")
    monkeypatch.setenv("UIC_LOG__PARTITIONS", "16")
    log = load_config(path).log
    assert (log.partitions, log.max_event_age_days) == (16, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("log: {partitons: 8}", r"log\.partitons: no such setting"),
        ("log: {partitions: 0}", r"log\.partitions: .*greater than or equal to 1 \(found 0\)"),
        ("samples: {cut: noon}", r"samples\.cut: .*'impression' or 'day_start' \(found 'noon'\)"),
        ("time_zone: Mars/Base", "time_zone: .*'Mars/Base' is not a time zone"),
        ("- a list", "found list, expected sections"),
        ("log: {", "cannot be read as YAML"),
    ],
)
def test_a_mistake_is_named_with_its_field(tmp_path, text, message):
    with pytest.raises(BadInputError, match=message):
        load_config(write(tmp_path, text))


@pytest.mark.parametrize("calendar", ["sale: days #1.yaml", "null", "1e3", "a, b.yaml", "s.yaml"])
def test_config_show_quotes_what_yaml_would_read_otherwise(tmp_path, monkeypatch, calendar):
    monkeypatch.setenv("UIC_SALE__CALENDAR", calendar)
    result = CliRunner().invoke(app, ["config", "show", "-w", str(tmp_path)])
    assert yaml.safe_load(result.stdout)["sale"]["calendar"] == calendar


def test_config_show_prints_yaml_that_means_the_same(tmp_path):
    result = CliRunner().invoke(app, ["config", "show", "-w", str(tmp_path)])
    assert result.exit_code == 0
    shown = write(tmp_path, result.stdout)
    assert load_config(shown) == load_config(None)
    assert yaml.safe_load(result.stdout)["samples"]["window_days"] == 60


def shown(tmp_path, *words):
    result = CliRunner().invoke(app, ["config", "show", "-w", str(tmp_path), *words])
    assert result.exit_code == 0
    return yaml.safe_load(result.stdout)


def test_config_show_leaves_advanced_settings_out_unless_they_are_set(tmp_path, monkeypatch):
    assert "attempts" not in shown(tmp_path)["stream"]
    assert shown(tmp_path, "--all")["stream"]["attempts"] == 10
    monkeypatch.setenv("UIC_STREAM__ATTEMPTS", "3")
    assert shown(tmp_path)["stream"]["attempts"] == 3


def test_forty_six_settings_are_advanced(tmp_path):
    def leaves(section):
        parts = [leaves(one) if isinstance(one, dict) else 1 for one in section.values()]
        return sum(parts)

    assert leaves(shown(tmp_path, "--all")) - leaves(shown(tmp_path)) == 46


def test_a_file_that_sets_an_advanced_setting_is_read_as_before(tmp_path):
    path = write(tmp_path, "stream: {batch_rows: 7}\nimages: {crop_px: 200}")
    config = load_config(path)
    assert (config.stream.batch_rows, config.images.crop_px) == (7, 200)


@pytest.mark.parametrize(("text", "says"), HOSTILE_SETTINGS.items())
def test_a_settings_file_that_would_fill_any_memory_is_one_line(tmp_path, text, says):
    path = tmp_path / "uic.yaml"
    path.write_text(text)
    with pytest.raises(BadInputError, match=says) as refused:
        load_config(path)
    assert len(str(refused.value)) < 300


def test_what_config_show_prints_can_be_read_back_and_tells_no_secret(tmp_path):
    config = Config(store={"password": "hunter 2: yes"}, serve={"token": "t"})
    text = "\n".join(yaml_lines(config, 0, everything=True))
    assert "hunter" not in text
    path = tmp_path / "uic.yaml"
    path.write_text(text)
    assert load_config(path).store.password is None


SECURITY = """
stream:
  security: {protocol: sasl_ssl, mechanism: scram-sha-512, username: shop, ca_file: ca.pem}
"""


def test_a_section_within_a_section_is_set_by_file_and_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("UIC_STREAM__SECURITY__PASSWORD", "hunter2")
    path = write(tmp_path, SECURITY)
    security = load_config(path).stream.security
    assert (security.protocol, security.mechanism) == ("SASL_SSL", "SCRAM-SHA-512")
    assert security.ca_file.is_absolute()
    assert security.password.get_secret_value() == "hunter2"
    result = CliRunner().invoke(app, ["config", "show", "--all", "-w", str(tmp_path)])
    assert "hunter2" not in result.output
    assert "    # password: (set, not shown)" in result.output
    again = tmp_path / "again.yaml"
    again.write_text(result.output)
    assert load_config(again) == load_config(path)


@pytest.mark.parametrize(
    ("security", "says"),
    [
        ("{ca_file: a.pem}", "ca_file is set and protocol is PLAINTEXT.*set protocol: SSL"),
        ("{protocol: SASL_PLAINTEXT, ca_file: a.pem}", "ca_file is set.*or SASL_SSL"),
        (
            "{username: u, password: hunter2}",
            "username is set and .* PLAINTEXT.*no login",
        ),
        ("{protocol: SSL, username: shop}", "username is set and protocol is SSL"),
        ("{protocol: SASL_SSL, username: shop}", "SASL_SSL and mechanism is not set"),
        ("{protocol: SASL_SSL, mechanism: PLAIN}", "SASL_SSL and username is not set"),
        ("{protocol: SSL, cert_file: a.pem}", "cert_file and key_file belong together"),
        ("{protocol: TLS}", r"protocol: .*'PLAINTEXT', 'SSL', .*found 'TLS'"),
        ("{protocol: SSL, cert_file: 'a:b.pem', key_file: c}", "cert_file: .*with a colon"),
        ("{password: 12345}", "password: .*put it in quotes"),
        ("{truststore: a.jks}", r"stream\.security\.truststore: no such setting"),
    ],
)
def test_what_does_not_belong_together_in_security_is_one_line(tmp_path, security, says):
    path = write(tmp_path, f"stream:\n  security: {security}")
    with pytest.raises(BadInputError, match=says) as refused:
        load_config(path)
    assert str(refused.value).startswith(f"{path}: stream.security")
    assert "\n" not in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert "12345" not in str(refused.value)


def test_no_error_of_a_file_or_a_variable_has_a_secret_in_it(tmp_path, monkeypatch):
    path = tmp_path / "uic.yaml"
    for written in ("*s3cret", "!s3cret x"):
        path.write_text(f"store:\n  password: {written}\n")
        with pytest.raises(BadInputError, match="cannot be read as YAML") as failure:
            load_config(path)
        assert "s3cret" not in str(failure.value)
        assert "\n" not in str(failure.value)
    monkeypatch.setenv("UIC_STREAM__SECURITY", "s3cret")
    with pytest.raises(BadInputError, match="UIC_STREAM") as failure:
        load_config(None)
    assert "s3cret" not in str(failure.value)


@pytest.mark.parametrize("written", ["''", '"a\\n"'])
def test_a_password_that_no_login_has_is_refused(tmp_path, written):
    path = tmp_path / "uic.yaml"
    login = f"protocol: SASL_SSL, mechanism: PLAIN, username: u, password: {written}"
    path.write_text(f"stream: {{security: {{{login}}}}}\n")
    with pytest.raises(BadInputError, match=r"password: .*give the password alone"):
        load_config(path)
