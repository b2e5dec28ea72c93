# SPDX-License-Identifier: Apache-2.0
"""Rules about the containers that a script runs."""

import re
from collections.abc import Callable, Iterator

from linewatch_fleet.recipes import docker_commands
from linewatch_fleet.recipes.findings import Check, Place, rule
from linewatch_fleet.recipes.images import TOKEN_EXCHANGE
from linewatch_fleet.recipes.reading import Recipe
from linewatch_fleet.recipes.steps import is_service

_CREDENTIALS = re.compile(r"-e[ =]?(AWS_CONTAINER_CREDENTIALS_FULL_URI|AWS_CONTAINER_AUTHORIZATION_TOKEN)\b")
_HOST_NETWORK = re.compile(r"--net(work)?[ =](name=)?host\b")


def _runs(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(path, command) of every `docker run`."""
    return ((f"{step.path}.Script", run) for step in recipe.steps for run in step.docker_runs)


def _services(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """The same for those that run for as long as the component does."""
    for step in recipe.steps:
        yield from ((f"{step.path}.Script", run) for run in step.docker_runs if is_service(step, run))


def _without(pattern: str, runs: Callable[[Recipe], Iterator[tuple[str, str]]] = _runs) -> Check:
    return lambda recipe: ((path, run[:60]) for path, run in runs(recipe) if not re.search(pattern, run))


def _with(pattern: str) -> Check:
    def check(recipe: Recipe) -> Iterator[Place]:
        for path, run in _runs(recipe):
            found = re.search(pattern, run)
            if found:
                yield path, found[0]

    return check


@rule("no-rm-first", "error",
      "What a killed docker client left holds the name: three failures, BROKEN, and the orphan works on unseen.",
      "`docker rm -f NAME` before `docker run --name NAME`.")  # fmt: skip
def _no_rm_first(recipe: Recipe) -> Iterator[Place]:
    for step in recipe.steps:
        for run in step.docker_runs:
            name = re.search(r"--name[ =](\S+)", run)
            if not name:
                continue
            script = docker_commands.unquoted(step.script)
            removals = re.findall(r"docker (?:container )?rm (?:-f|--force)([^\n;]*)", script)
            names = " ".join(removals).split() + [
                str(step.setenv.get(word.lstrip("$")))
                for one in removals
                for word in one.split()
                if word[:1] == "$"
            ]
            if name[1] not in names:
                yield f"{step.path}.Script", f"--name {name[1]}"


rule("no-name", "error", "A container without a name can't be removed by the next start: orphans pile up.",
     "--name NAME, and `docker rm -f NAME` first.")(_without(r"--name[ =]\S"))  # fmt: skip
rule("no-init", "error", "A program that is process 1 and has no handler ignores SIGTERM, all that lite sends.",
     "docker run --init")(_without(r"--init(?!=false)\b", _services))  # fmt: skip
rule("restart-policy", "error", "Docker restarts what the nucleus stopped or gave up, behind its back.",
     "No --restart: the nucleus restarts.")(_with(r"--restart[ =](?!no\b)\S+"))  # fmt: skip
rule("terminal", "error", "The nucleus gives no terminal: `docker run -t` ends at once.",
     "Leave -i and -t out.")(_with(r"\s(-it|-ti|-t|--tty)(?=\s)"))  # fmt: skip
rule("privileged-container", "error", "A container with all privileges is root on the device.",
     "Give it the one device or capability that it needs.")(_with(r"--privileged(?!=false)\b"))  # fmt: skip
rule("docker-socket-mounted", "error", "Who reaches Docker's socket is root on the device.",
     "Leave it out.")(_with(r"docker\.sock\b"))  # fmt: skip
rule("no-cap-drop", "error", "Docker gives a container 14 capabilities; a service needs none.",
     "--cap-drop ALL")(_without(r"(?i)--cap-drop[ =]ALL\b"))  # fmt: skip
rule("no-read-only", "error", "What breaks in can change the program, and writes wear the flash.",
     "--read-only, with --tmpfs or -v for what is written")(_without(r"--read-only(?!=false)\b"))  # fmt: skip
rule("no-new-privileges", "error", "A set-uid program in the image makes root of any user.",
     "--security-opt no-new-privileges")(_without(r"no-new-privileges(?![=:]false)\b"))  # fmt: skip
rule("no-user", "error", "Root in a container is one kernel bug from root on the device.",
     "--user UID:GID")(_without(r"--user[ =]\S|\s-u[ =]?\S"))  # fmt: skip
rule("runs-as-root", "error", "Root in a container is one kernel bug from root on the device.",
     "A user above 0.")(_with(r"\s(--user[ =]|-u[ =]?)(\+?0+|root)(?=[:\s]|$)"))  # fmt: skip
rule("no-memory-limit", "error", "runWith's limits count for the docker client; a container takes all memory of the device.",
     "--memory, and --memory-swap of the same size")(_without(r"(--memory|\s-m)[ =](?!0+[bkmgBKMG]?(\s|$))\S"))  # fmt: skip
rule("no-cpu-limit", "error", "runWith's limits count for the docker client; a container takes every processor.",
     "--cpus")(_without(r"--cpus[ =](?!0*\.?0*(\s|$))\S", _services))  # fmt: skip
rule("no-pids-limit", "error", "A service that forks without end takes the device with it.",
     "--pids-limit")(_without(r"--pids-limit[ =](?!0+(\s|$)|-)\S"))  # fmt: skip
rule("no-log-limit", "error", "Docker's default log driver grows until the disk is full.",
     "--log-driver local, or --log-opt max-size")(_without(r"--log-driver[ =](local|journald|none)\b|max-size=", _services))  # fmt: skip


@rule("published-everywhere", "error", "A published port without an address is open to the plant's network, past the firewall.",
      "-p 127.0.0.1:PORT:PORT, or no port and a network of the containers' own")  # fmt: skip
def _published_everywhere(recipe: Recipe) -> Iterator[Place]:
    for path, run in _runs(recipe):
        for value in docker_commands.options(run, "--publish"):
            address, colon, _ = value.rpartition(":")[0].rpartition(":")
            if not colon or address in {"", "0.0.0.0", "0", "[::]", "::", "[::0]"}:
                yield path, f"--publish {value}"
        all_of_them = re.search(r"\s-[dit]*P(?=\s)|--publish-all(?!=false)", run)
        if all_of_them:
            yield path, all_of_them[0].strip()


@rule("pulls-always", "error", "Offline the pull fails, three times, and the component is BROKEN, with the image on the disk.",
      "`docker image inspect IMAGE || docker pull IMAGE`, with patience.")  # fmt: skip
def _pulls_always(recipe: Recipe) -> Iterator[Place]:
    for step in recipe.steps:
        for found in re.finditer(r"docker pull\b[^\n;|&]*|--pull[ =]always\b", step.script):
            # Also behind a word that bounds it: `|| timeout 60 docker pull`.
            if not re.search(r"\|\|[^\n;|&]*$", step.script[: found.start()]):
                yield f"{step.path}.Script", found[0][:80]


@rule("host-network", "error", "On the host's network a container reaches every loopback service, the nucleus's too.",
      "A bridge network; only what needs token exchange or Stream Manager has no other way.")  # fmt: skip
def _host_network(recipe: Recipe) -> Iterator[Place]:
    for path, run in _runs(recipe):
        found = _HOST_NETWORK.search(run)
        if found and not _CREDENTIALS.search(run):
            yield path, found[0]


@rule("credentials-on-bridge", "error",
      "Token exchange and Stream Manager listen on the host's loopback: from a bridge network they can't be reached.",
      "--network host for this container, or leave the variables out.")  # fmt: skip
def _credentials_on_bridge(recipe: Recipe) -> Iterator[Place]:
    for path, run in _runs(recipe):
        found = _CREDENTIALS.search(run)
        if found and not _HOST_NETWORK.search(run):
            yield path, found[1]


@rule("credentials-without-dependency", "error",
      "AWS_CONTAINER_CREDENTIALS_FULL_URI is set only for components that depend on token exchange.",
      f"Depend on {TOKEN_EXCHANGE}, SOFT.")  # fmt: skip
def _credentials_without_dependency(recipe: Recipe) -> Iterator[Place]:
    for path, text in recipe.texts():
        if "AWS_CONTAINER_CREDENTIALS_FULL_URI" in text and TOKEN_EXCHANGE not in recipe.dependencies:
            yield path, "AWS_CONTAINER_CREDENTIALS_FULL_URI"


@rule(
    "nvidia-runtime",
    "error",
    "With --gpus alone CUDA is missing on a Jetson, and nobody is told.",
    "--runtime=nvidia",
)
def _nvidia_runtime(recipe: Recipe) -> Iterator[Place]:
    jetson = any(
        "jetson" in str(value).lower() for _, platform in recipe.platforms for value in platform.values()
    )
    if jetson and not re.search(r"--runtime[ =]nvidia\b", " ".join(run for _, run in _runs(recipe))):
        yield from ((path, "for a Jetson") for path, _ in list(_services(recipe))[:1])
    yield from (
        (path, "--gpus") for path, run in _runs(recipe)
        if not jetson and re.search(r"--gpus\b", run) and not re.search(r"--runtime[ =]nvidia\b", run)
    )  # fmt: skip


@rule("device-certificate", "error",
      "The nucleus's key is the device's identity; a second connection with it throws the nucleus off.",
      "A thing and a certificate of its own, or IPC.")  # fmt: skip
def _device_certificate(recipe: Recipe) -> Iterator[Place]:
    mounted = re.compile(
        r"(?:/greengrass/v2|/var/lib/greengrass|\{kernel:rootPath\})[^\s:\"']*(?:\.pem|\.key|\.crt|certs?/?)(?=[\s:\"']|$)",
        re.IGNORECASE,
    )
    for path, text in recipe.texts():
        yield from ((path, found[0]) for found in mounted.finditer(text))


@rule("client-id-of-nucleus", "error", "Two connections with the thing's name as client id throw each other off, again and again.",
      "A client id of its own, such as the thing's name with an ending.")  # fmt: skip
def _client_id_of_nucleus(recipe: Recipe) -> Iterator[Place]:
    for path, text in recipe.texts():
        if re.search(r"CLIENT_?ID\w*$", path, re.IGNORECASE) and text in {
            "{iot:thingName}",
            "$AWS_IOT_THING_NAME",
        }:
            yield path, text


@rule(
    "socket-path",
    "error",
    "Each nucleus keeps its socket elsewhere.",
    "$AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT",
)
def _socket_path(recipe: Recipe) -> Iterator[Place]:
    for path, text in recipe.texts():
        yield from ((path, found[0]) for found in re.finditer(r"/\S*\b(?:gg-)?ipc\.socket", text))


@rule("socket-not-mounted", "error", "SVCUID without the nucleus's socket is of no use in the container.",
      "-v SOCKET:SOCKET and -e of its variable, beside -e SVCUID.")  # fmt: skip
def _socket_not_mounted(recipe: Recipe) -> Iterator[Place]:
    for path, run in _runs(recipe):
        if (
            re.search(r"-e[ =]?SVCUID\b", run)
            and "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT" not in run
        ):
            yield path, "-e SVCUID"


@rule("docker-without-privilege", "warning", "ggc_user is in no docker group on a fresh device: permission denied on the socket.",
      "RequiresPrivilege: true; the group would make every component root.")  # fmt: skip
def _docker_without_privilege(recipe: Recipe) -> Iterator[Place]:
    for step in recipe.steps:
        if (
            re.search(r"\bdocker\s", step.script)
            and str(step.body.get("RequiresPrivilege", "")).lower() != "true"
        ):
            yield step.path, "docker as ggc_user"
