"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes them."""
    op.create_table(
        "host_class",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_host_class")),
        sa.UniqueConstraint("signature", name=op.f("uq_host_class_signature")),
        comment="a class of hosts for one kind of guest",
    )
    op.create_table(
        "make",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kernel", sa.Text(), nullable=False),
        sa.Column("qemus", sa.Text(), nullable=False),
        sa.Column("cpu", sa.Text(), nullable=False),
        sa.Column("armferry", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_make")),
        sa.UniqueConstraint(
            "kernel", "qemus", "cpu", "armferry", name=op.f("uq_make_kernel_qemus_cpu_armferry")
        ),
        comment="what hosts run and are made of; qemus is a JSON list of versions",
    )
    op.create_table(
        "outcome",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("answer", sa.SmallInteger(), nullable=False),
        sa.Column("risk", sa.SmallInteger(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outcome")),
        sa.UniqueConstraint("digest", name=op.f("uq_outcome_digest")),
        comment="what cells say, each once; detail is JSON",
    )
    op.create_table(
        "variant",
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("signature", name=op.f("pk_variant")),
        comment="a content, as a fingerprint that has it, compressed by zlib",
    )
    op.create_table(
        "cell",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("birth", sa.Integer(), nullable=False),
        sa.Column("present", sa.Integer(), nullable=False),
        sa.Column("destination", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["birth"], ["host_class.id"], name=op.f("fk_cell_birth")),
        sa.ForeignKeyConstraint(
            ["destination"], ["host_class.id"], name=op.f("fk_cell_destination")
        ),
        sa.ForeignKeyConstraint(["outcome"], ["outcome.id"], name=op.f("fk_cell_outcome")),
        sa.ForeignKeyConstraint(["present"], ["host_class.id"], name=op.f("fk_cell_present")),
        sa.PrimaryKeyConstraint("key", "birth", "present", "destination", name=op.f("pk_cell")),
        comment="cells that were worked out, by policy and armferry (key)",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "class_variant",
        sa.Column("class_id", sa.Integer(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["class_id"], ["host_class.id"], name=op.f("fk_class_variant_class_id")
        ),
        sa.ForeignKeyConstraint(
            ["signature"], ["variant.signature"], name=op.f("fk_class_variant_signature")
        ),
        sa.PrimaryKeyConstraint("class_id", "signature", name=op.f("pk_class_variant")),
    )
    op.create_table(
        "gone",
        sa.Column("guest_id", sa.LargeBinary(), nullable=False),
        sa.Column("birth", sa.Integer(), nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["birth"], ["host_class.id"], name=op.f("fk_gone_birth")),
        sa.PrimaryKeyConstraint("guest_id", name=op.f("pk_gone")),
        comment="where a guest was born that no host reports any more: it may be on its way",
    )
    op.create_table(
        "guest_state",
        sa.Column("birth", sa.Integer(), nullable=False),
        sa.Column("present", sa.Integer(), nullable=False),
        sa.Column("guests", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["birth"], ["host_class.id"], name=op.f("fk_guest_state_birth")),
        sa.ForeignKeyConstraint(
            ["present"], ["host_class.id"], name=op.f("fk_guest_state_present")
        ),
        sa.PrimaryKeyConstraint("birth", "present", name=op.f("pk_guest_state")),
        comment="derived: how many guests",
    )
    op.create_table(
        "host",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("make_id", sa.Integer(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("failure_domain", sa.Text(), nullable=False),
        sa.Column("memory", sa.Integer(), nullable=False),
        sa.Column("heard", sa.Double(), nullable=False),
        sa.Column("boot", sa.LargeBinary(), nullable=False),
        sa.Column("stale", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["make_id"], ["make.id"], name=op.f("fk_host_make_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_host")),
        sa.UniqueConstraint("name", name=op.f("uq_host_name")),
        comment="stale: a fingerprint of it is of another kernel than it runs",
    )
    op.create_table(
        "tally",
        sa.Column("class_id", sa.Integer(), nullable=False),
        sa.Column("make_id", sa.Integer(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("hosts", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["class_id"], ["host_class.id"], name=op.f("fk_tally_class_id")),
        sa.ForeignKeyConstraint(["make_id"], ["make.id"], name=op.f("fk_tally_make_id")),
        sa.PrimaryKeyConstraint("class_id", "make_id", "site", name=op.f("pk_tally")),
        comment="derived: how many hosts",
    )
    op.create_table(
        "guest",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("guest_id", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("host_id", sa.Integer(), nullable=False),
        sa.Column("birth", sa.Integer(), nullable=False),
        sa.Column("present", sa.Integer(), nullable=False),
        sa.Column("memory", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["birth"], ["host_class.id"], name=op.f("fk_guest_birth")),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name=op.f("fk_guest_host_id")),
        sa.ForeignKeyConstraint(["present"], ["host_class.id"], name=op.f("fk_guest_present")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_guest")),
        sa.UniqueConstraint("guest_id", name=op.f("uq_guest_guest_id")),
    )
    op.create_index(op.f("ix_guest_host_id"), "guest", ["host_id"], unique=False)
    op.create_index("ix_guest_present_birth", "guest", ["present", "birth"], unique=False)
    op.create_table(
        "history",
        sa.Column("host_id", sa.Integer(), nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.Column("make_id", sa.Integer(), nullable=False),
        sa.Column("boot", sa.LargeBinary(), nullable=False),
        sa.Column("classes", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name=op.f("fk_history_host_id")),
        sa.ForeignKeyConstraint(["make_id"], ["make.id"], name=op.f("fk_history_make_id")),
        sa.PrimaryKeyConstraint("host_id", "time", name=op.f("pk_history")),
        comment="a host's reports in which something changed; classes is a JSON list of their ids",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "membership",
        sa.Column("host_id", sa.Integer(), nullable=False),
        sa.Column("class_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["class_id"], ["host_class.id"], name=op.f("fk_membership_class_id")
        ),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name=op.f("fk_membership_host_id")),
        sa.PrimaryKeyConstraint("host_id", "class_id", name=op.f("pk_membership")),
        comment="the classes of a host, one for each kind of guest",
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_membership_class_id"), "membership", ["class_id"], unique=False)
    op.create_table(
        "pin",
        sa.Column("guest", sa.Integer(), nullable=False),
        sa.Column("host_name", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["guest"], ["guest.id"], name=op.f("fk_pin_guest")),
        sa.PrimaryKeyConstraint("guest", "host_name", name=op.f("pk_pin")),
        comment="the only hosts that a guest may run on",
    )
