"""The only code that writes an unpacked file.

An archiver yields members; whether a name may be written, where, and with which mode is decided here and nowhere else. The rules:

- A name is relative, ``/``-separated, without ``..``, empty or ``.`` components, control characters or backslashes. One leading
  ``./`` is dropped, since ``tar -C dir .`` writes it.
- Directories are walked by descriptors, and only through directories made by this run. Nothing is ever overwritten (``O_EXCL``) and
  no link is followed (``O_NOFOLLOW``).
- Symbolic links are made after everything else, so no file can pass through one; each points, relatively, to something written.
- Hard links are copies. Devices, pipes and whatever else there is are refused.
- Two names that one file system could take for the same (case, Unicode composition) are refused.
- Modes are 0755 for directories and executables, 0644 for the rest, under the process's umask.
"""

# No typing, dataclasses or pathlib at run time: the child that unpacks imports this, and they would double its start.
from __future__ import annotations

import os

from flame_host._packages.unpack.names import COMPONENT_BYTES, bad_component, check_name, fold, without_dot
from flame_host.api import ArchiveError, ArchiveLimitError, Member, MemberKind, UnsafeArchiveError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from flame_host.api import Limits

__all__ = ["TreeSummary", "write_tree"]

FILE, DIRECTORY, SYMLINK, HARDLINK = int(MemberKind.FILE), int(MemberKind.DIRECTORY), int(MemberKind.SYMLINK), int(MemberKind.HARDLINK)
RATIO_FREE_BYTES = 16 << 20
COPY_BYTES = 1 << 20

CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class TreeSummary:
    """What was written.

    Attributes:
        count: members of the archive; directories it implies without listing them are not counted. bytes: content of files.
    """

    __slots__ = ("bytes", "count")

    def __init__(self, count: int, bytes: int) -> None:
        self.count = count
        self.bytes = bytes

    def __repr__(self) -> str:
        return f"TreeSummary(count={self.count}, bytes={self.bytes})"


def write_tree(members: Iterable[Member], root: Path | str, limits: Limits, *, compressed_size: int) -> TreeSummary:
    """Write members below a directory that exists and is empty.

    On any error the directory holds a part of the tree; it is the caller's to remove.

    Args:
        compressed_size: bytes of the archive, for the ratio budget.

    Raises:
        UnsafeArchiveError: a member breaks a rule. ArchiveLimitError: a budget is exceeded. ArchiveError: content and size disagree.
    """
    writer = _TreeWriter(root, limits, compressed_size)
    try:
        for member in members:
            writer.add(member)
        writer.make_links()
        return TreeSummary(writer.count, writer.written)
    finally:
        writer.close()


class _TreeWriter:
    """One run. ``taken`` maps a folded name to what stands there; ``directories`` maps an exact name to "was it listed itself"."""

    def __init__(self, root: Path | str, limits: Limits, compressed_size: int) -> None:
        self.limits = limits
        self.count = 0
        self.implied = 0
        self.written = 0
        self.name_bytes = 0
        self.expandable = min(limits.expanded_bytes, max(RATIO_FREE_BYTES, limits.ratio * compressed_size))
        self.quick_bytes = min(COMPONENT_BYTES, limits.name_bytes)
        self.taken: dict[str, int] = {}
        self.directories: dict[str, bool] = {"": False}
        self.executable_files: dict[str, bool] = {}
        self.links: dict[str, str] = {}
        # The chain of open directories from the root to the current one.
        self.chain: list[str] = []
        self.descriptors: list[int] = [os.open(root, OPEN_DIRECTORY)]
        self.current = ""
        self.descriptor = self.descriptors[0]

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()

    def add(self, member: Member) -> None:
        name, kind, size, executable, link, content = member
        self.count += 1
        if self.count + self.implied > self.limits.members:
            raise ArchiveLimitError("members", f"the archive has more than {self.limits.members} members")
        self.name_bytes += len(name) + len(link)
        if self.name_bytes > self.limits.header_bytes:
            raise ArchiveLimitError("header-bytes", f"names and links need more than {self.limits.header_bytes} bytes")
        if kind == FILE:
            parent, base = self._claim(name, FILE)
            self._write_file(name, parent, base, size, executable, content)
        elif kind == DIRECTORY:
            self._add_directory(name)
        elif kind == SYMLINK:
            self._claim(name, SYMLINK)
            self.links[without_dot(name)] = link
        elif kind == HARDLINK:
            self._copy(name, link)
        else:
            raise UnsafeArchiveError("member-type", name, "only files, directories and links are unpacked")

    def _claim(self, name: str, kind: int) -> tuple[str, str]:
        """Check a name, reserve it, and enter its directory; returns its parent and last component."""
        if name[:2] == "./":
            name = name[2:]
        # The quick test admits what nearly every name is; the slow one knows why the others are refused.
        if not (name.isascii() and name.isprintable() and len(name) <= self.quick_bytes and "\\" not in name):
            check_name(name, self.limits.name_bytes)
        parent, _, base = name.rpartition("/")
        if base in ("", ".", "..") or (not parent and name[0] == "/"):
            raise bad_component(base, name)
        if parent != self.current:
            self._enter(parent, name)
        folded = name.lower() if name.isascii() else fold(name)
        if folded in self.taken:
            raise UnsafeArchiveError("duplicate", name, "two members have the same name, or one that some file systems cannot tell apart")
        self.taken[folded] = kind
        return parent, base

    def _enter(self, parent: str, name: str) -> None:
        """Make the directory current, creating what is missing on the way."""
        wanted = parent.split("/") if parent else []
        if parent not in self.directories:
            self._check_parents(wanted, name)
        shared = 0
        for have, want in zip(self.chain, wanted, strict=False):
            if have != want:
                break
            shared += 1
        del self.chain[shared:]
        while len(self.descriptors) > shared + 1:
            os.close(self.descriptors.pop())
        for component in wanted[shared:]:
            self.chain.append(component)
            self._descend("/".join(self.chain), component, name)
        self.current = parent
        self.descriptor = self.descriptors[-1]

    def _check_parents(self, components: list[str], name: str) -> None:
        if name[:1] == "/":
            raise UnsafeArchiveError("absolute-path", name, "a name is absolute")
        for component in components:
            if component in ("", ".", ".."):
                raise bad_component(component, name)
        if len(components) >= self.limits.depth:
            raise ArchiveLimitError("depth", f"a name is {len(components) + 1} directories deep; {self.limits.depth} are allowed")

    def _descend(self, path: str, component: str, name: str) -> None:
        if path not in self.directories:
            folded = fold(path)
            if folded in self.taken:
                if self.taken[folded] == DIRECTORY:
                    raise UnsafeArchiveError("duplicate", name, "two directories differ only in case or Unicode composition")
                raise UnsafeArchiveError("not-a-directory", name, "a member lies below one that is no directory")
            self.implied += 1
            os.mkdir(component, 0o755, dir_fd=self.descriptors[-1])
            self.taken[folded] = DIRECTORY
            self.directories[path] = False
        self.descriptors.append(os.open(component, OPEN_DIRECTORY, dir_fd=self.descriptors[-1]))

    def _add_directory(self, name: str) -> None:
        path = name[:-1] if name[-1:] == "/" else name
        path = "" if path == "." else without_dot(path)
        if path == "" and name not in (".", "./"):
            raise UnsafeArchiveError("absolute-path" if name else "empty-name", name, "a directory has no name")
        if path not in self.directories:
            _, base = self._claim(path, DIRECTORY)
            os.mkdir(base, 0o755, dir_fd=self.descriptor)
        elif self.directories[path]:
            raise UnsafeArchiveError("duplicate", name, "a directory is listed twice")
        elif path:
            self.implied -= 1  # it was counted when a member below it came first
        self.directories[path] = True

    def _account(self, name: str, size: int) -> None:
        if size < 0:
            raise UnsafeArchiveError("negative-size", name, "a size is negative")
        if size > self.limits.member_bytes:
            raise ArchiveLimitError("member-bytes", f"{name!r} has {size} bytes; {self.limits.member_bytes} are allowed")
        self.written += size
        if self.written > self.expandable:
            if self.written > self.limits.expanded_bytes:
                raise ArchiveLimitError("expanded-bytes", f"the archive expands to more than {self.limits.expanded_bytes} bytes")
            raise ArchiveLimitError("ratio", f"the archive expands to more than {self.limits.ratio} times its size")

    def _write_file(self, name: str, parent: str, base: str, size: int, executable: bool, content: bytes | Iterator[bytes]) -> None:
        self._account(name, size)  # before a byte is written: a lie about the size must not fill the disk
        descriptor = os.open(base, CREATE, 0o755 if executable else 0o644, dir_fd=self.descriptor)
        try:
            if isinstance(content, bytes):
                given = len(content)
                if given == size and given and os.write(descriptor, content) != given:
                    os.ftruncate(descriptor, 0)  # more than one call takes (2 GiB), or a nearly full disk
                    os.lseek(descriptor, 0, os.SEEK_SET)
                    given = _write_pieces(descriptor, iter((content,)), size)
            else:
                given = _write_pieces(descriptor, content, size)
        finally:
            os.close(descriptor)
        if given != size:
            raise ArchiveError(f"{name!r} is announced with {size} bytes and has {'more' if given > size else given}")
        self.executable_files[f"{parent}/{base}" if parent else base] = executable

    def _copy(self, name: str, link: str) -> None:
        """A hard link becomes a copy: two names for one file would let a later write to one change the other."""
        source = without_dot(link)
        executable = self.executable_files.get(source)
        if executable is None:
            raise UnsafeArchiveError("hardlink-target", name, f"a hard link to {link!r}, which is no file written before")
        self._enter(source.rpartition("/")[0], source)
        descriptor = os.open(source.rpartition("/")[2], OPEN_FILE, dir_fd=self.descriptor)
        try:
            parent, base = self._claim(name, HARDLINK)
            size = os.fstat(descriptor).st_size
            self._write_file(without_dot(name), parent, base, size, executable, iter(lambda: os.read(descriptor, COPY_BYTES), b""))
        finally:
            os.close(descriptor)

    def make_links(self) -> None:
        """Make the symbolic links, each after the one it points to."""
        waiting: dict[str, list[str]] = {}
        ready: list[str] = []
        for path, link in self.links.items():
            target = self._resolve(path, link)
            if target in self.links:
                waiting.setdefault(target, []).append(path)
            else:
                ready.append(path)
        while ready:
            path = ready.pop()
            parent, _, base = path.rpartition("/")
            if parent != self.current:
                self._enter(parent, path)
            os.symlink(self.links.pop(path), base, dir_fd=self.descriptor)
            ready.extend(waiting.pop(path, ()))
        for path in self.links:
            raise UnsafeArchiveError("symlink-cycle", path, "symbolic links point to each other in a circle")

    def _resolve(self, path: str, link: str) -> str:
        """What a link points to, judged by what was written: every step but the last is a directory of this run."""
        if not link:
            raise UnsafeArchiveError("symlink-target", path, "a symbolic link without a target")
        if link[0] == "/":
            raise UnsafeArchiveError("symlink-absolute", path, f"a symbolic link to the absolute {link!r}")
        check_name(link, self.limits.name_bytes)
        steps = path.split("/")[:-1]
        for component in link.rstrip("/").split("/"):
            here = "/".join(steps)
            if here not in self.directories:
                raise UnsafeArchiveError("symlink-target", path, f"a symbolic link to {link!r}, which leads through {here!r}, no directory")
            if component == "..":
                if not steps:
                    raise UnsafeArchiveError("symlink-outside", path, f"a symbolic link to {link!r}, outside the package")
                steps.pop()
            elif component != ".":
                steps.append(component)
        target = "/".join(steps)
        if target not in self.directories and target not in self.executable_files and target not in self.links:
            raise UnsafeArchiveError("symlink-target", path, f"a symbolic link to {link!r}, which is not in the archive")
        return target


def _write_pieces(descriptor: int, pieces: Iterator[bytes], size: int) -> int:
    """Write pieces while they fit; returns the bytes given, of which none beyond ``size`` was written."""
    given = 0
    for piece in pieces:
        given += len(piece)
        if given > size:
            break
        view = memoryview(piece)
        while view:
            view = view[os.write(descriptor, view) :]
    return given
