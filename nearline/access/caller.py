"""A caller: who it is, which tenant it acts for, and what it may do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from nearline.access.rights import Right
from nearline.contract import DEFAULT_TENANT
from nearline.errors import PermissionDenied

PUBLIC = "public"
# In a credential: rights in all collections; as a tenant: an operator, who may name any tenant.
EVERY = "*"


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller; all of it comes from the credential, nothing from the request.

    tenant: The tenant that it acts for; "*" is an operator, who may name any tenant.
    roles: Roles of `readers_attribute`, sorted.
    rights: The right by collection; "*" is the right in all other collections.
    name: Who it is, for the audit log: the id of a key, or the subject of a token.
    key: Id of its key; empty for a token, whose subject anybody may have chosen.
    through_service: Whether one of Nearline's services calls on its behalf.
    """

    tenant: str = DEFAULT_TENANT
    roles: tuple[str, ...] = ()
    rights: Mapping[str, Right] = field(default_factory=lambda: {EVERY: Right.SERVICE})
    name: str = "anonymous"
    key: str = ""
    through_service: bool = False

    @property
    def owner(self) -> str:
        """Owner of a conversation: callers with fewer roles cannot read it."""
        return "+".join(quote(one, safe="") for one in (self.tenant, *self.roles))

    @property
    def reads(self) -> tuple[str, ...]:
        """The caller's names as a reader; an item is visible if it lists one of them."""
        return (PUBLIC, f"tenant:{self.tenant}", *(f"role:{role}" for role in self.roles))

    @property
    def sees_everything(self) -> bool:
        """Whether items are shown to it whoever their readers are: only an operator."""
        return self.tenant == EVERY

    def right_in(self, collection: str) -> Right:
        """Returns the right in a collection."""
        found = self.rights.get(collection)
        return self.rights.get(EVERY, Right.NONE) if found is None else found

    def may_read(self, collection: str) -> bool:
        """Returns whether it may know of a collection."""
        return self.right_in(collection) >= Right.READ

    def through(self, service: Caller) -> Caller:
        """Returns this caller with the rights that a service that calls for it has as well."""
        rights = {
            one: min(self.right_in(one), service.right_in(one))
            for one in {*self.rights, *service.rights, EVERY}
        }
        return replace(self, rights=rights)

    @property
    def highest_right(self) -> Right:
        """The right in the collection where it is highest."""
        return max(self.rights.values(), default=Right.NONE)

    def require(self, right: Right, method: str, collection: str | None = None) -> None:
        """Checks that the caller, or the service that calls for it, may call a method.

        Args:
            collection: The collection concerned; None if a right in any is enough.
        Raises: PermissionDenied: it may not.
        """
        if right is Right.SERVICE and self.through_service:
            return
        held = self.highest_right if collection is None else self.right_in(collection)
        if held >= right:
            return
        where = "any collection" if collection is None else f"collection {collection!r}"
        raise PermissionDenied(
            f"{method} needs the right {right.name.lower()!r} in {where}, and {self.name!r} has "
            f"{held.name.lower()!r}; ask the operator for a key with that right"
        )

    @property
    def names_tenants(self) -> bool:
        """Whether it may act for any tenant: an operator, a service for itself, or, where no
        credentials are required, everybody."""
        return self.tenant == EVERY or (
            not self.through_service and self.rights.get(EVERY) is Right.SERVICE
        )

    def acts_for(self, tenant: str) -> bool:
        """Returns whether what belongs to a tenant is shown to it."""
        return self.names_tenants or tenant == self.tenant

    def may(self, right: Right, tenant: str, collection: str) -> bool:
        """Returns whether it has a right to what a tenant has in a collection."""
        return self.acts_for(tenant) and self.right_in(collection) >= right

    def is_unlimited(self, right: Right) -> bool:
        """Returns whether it has a right in every collection, for every tenant."""
        return self.names_tenants and EVERY in self.rights and min(self.rights.values()) >= right

    def tenant_of(self, named: str) -> str:
        """Returns the tenant of a request that may name one.

        Args:
            named: The tenant that the request names; empty for the caller's own, or, for an
                operator, for all.
        Raises: PermissionDenied: it is another than the caller's.
        """
        if self.names_tenants:
            return named
        if named not in ("", self.tenant):
            raise PermissionDenied(
                f"the request names tenant {named!r}, and the credential of {self.name!r} is of "
                f"tenant {self.tenant!r}; leave the tenant empty"
            )
        return self.tenant


ANONYMOUS = Caller()
