"""The decision: incoming list, destination fingerprint and policy in; verdict out."""

from armferry.decide.circumstance import Circumstance, CircumstanceKind, Weight
from armferry.decide.circumstances import compare_circumstances
from armferry.decide.layout import Effect, SectionDifference, compare_sections
from armferry.decide.merge import decide
from armferry.decide.model import (
    Decision,
    RegisterClass,
    RegisterOutcome,
)
from armferry.decide.plan import Plan, PlanEntry, make_plan
from armferry.decide.plan_text import plan_compat, plan_globals, plan_prose, plan_starts, plan_toml
from armferry.decide.report import trace_line, verdict_document
from armferry.decide.risk_level import Risk
from armferry.decide.stock import stock_verdict
from armferry.decide.stock_lines import MessageClass, StockVerdict
from armferry.decide.verdict import Answer, TraceEvent, Verdict, judge
from armferry.decide.words import differences

__all__ = [
    "Answer",
    "Circumstance",
    "CircumstanceKind",
    "Decision",
    "Effect",
    "MessageClass",
    "Plan",
    "PlanEntry",
    "RegisterClass",
    "RegisterOutcome",
    "Risk",
    "SectionDifference",
    "StockVerdict",
    "TraceEvent",
    "Verdict",
    "Weight",
    "compare_circumstances",
    "compare_sections",
    "decide",
    "differences",
    "judge",
    "make_plan",
    "plan_compat",
    "plan_globals",
    "plan_prose",
    "plan_starts",
    "plan_toml",
    "stock_verdict",
    "trace_line",
    "verdict_document",
]
