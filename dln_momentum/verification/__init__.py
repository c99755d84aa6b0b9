"""Every statement of the theory, evaluated on a given problem: predicted, measured, verdict."""

from dln_momentum.verification.case import Case
from dln_momentum.verification.evidence import Evidence
from dln_momentum.verification.statement import Hypothesis, Statement, Verdict
from dln_momentum.verification.statements import statements

__all__ = ["Case", "Evidence", "Hypothesis", "Statement", "Verdict", "statements"]
