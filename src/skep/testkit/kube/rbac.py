"""Who may do what: bearer tokens, users, and rules as RBAC has them (verbs × groups × resources × namespaces)."""

from typing import Final, NamedTuple

from skep.testkit.kube.resources import Resource
from skep.testkit.kube.status import forbidden, unauthorized

ANY: Final = "*"
ADMIN_TOKEN: Final = "admin-token"  # noqa: S105 - a fake server's, on loopback


class Rule(NamedTuple):
    """One rule; `*` stands for all. A subresource is named as `pods/status`. No namespaces: everywhere."""

    verbs: tuple[str, ...]
    groups: tuple[str, ...] = (ANY,)
    resources: tuple[str, ...] = (ANY,)
    namespaces: tuple[str, ...] = ()


class Rbac:
    """The users of one fake cluster; it starts with an administrator."""

    def __init__(self) -> None:
        self._users: dict[str, str] = {ADMIN_TOKEN: "admin"}
        self._rules: dict[str, list[Rule]] = {"admin": [Rule((ANY,))]}

    def add_user(self, user: str, *rules: Rule) -> str:
        """Add a user with these rules and nothing else; return the token to call with."""
        token = f"token-of-{user}"
        self._users[token] = user
        self._rules[user] = list(rules)
        return token

    def authenticate(self, authorization: str) -> str:
        """Return the user of an Authorization header. Raises: ApiError (401)."""
        scheme, _, token = authorization.partition(" ")
        user = self._users.get(token.strip()) if scheme.lower() == "bearer" else None
        if user is None:
            raise unauthorized()
        return user

    def authorize(
        self, user: str, verb: str, resource: Resource, namespace: str, name: str, subresource: str
    ) -> None:
        """Return where a rule allows it. Raises: ApiError (403)."""
        if not self.is_allowed(
            user,
            verb,
            resource.group,
            resource.plural + (f"/{subresource}" if subresource else ""),
            namespace,
        ):
            raise forbidden(user, verb, resource, namespace, name)

    def is_allowed(self, user: str, verb: str, group: str, resource: str, namespace: str) -> bool:
        """Tell whether a rule of the user covers it."""
        return any(
            _covers(rule.verbs, verb)
            and _covers(rule.groups, group)
            and _covers(rule.resources, resource)
            and (not rule.namespaces or namespace in rule.namespaces)
            for rule in self._rules.get(user, ())
        )


def _covers(allowed: tuple[str, ...], wanted: str) -> bool:
    return ANY in allowed or wanted in allowed
