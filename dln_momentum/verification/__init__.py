"""Every statement of the theory, evaluated on a given problem: predicted, measured, verdict.

The statements on each file of `dln_momentum.theory` are in the file of the same name here:

    theory              statements here that evaluate it
    trajectory          trajectory: implicit bias of a run and of a flow, Delta, KKT, minimisers
    discrete_bias       discrete_bias: the identities of S_+- at every step
    continuous_bias     continuous_bias: energy, I_+- by definition, on contours and read off
    entropy             entropy: psi, its gradient and divergence; gradient flow as a mirror flow
    minimizers          minimizers: the limits of gradient flow
    dual_newton         none: the solver of the minimisers, which their statements judge
    newton_systems      none: its linear systems
    interpolators       interpolators: least l1 norm and least weighted l2 norm
    three_point         three_point: the right angle at theta_t
    mirror_flow         mirror_flow: the time-varying mirror flow
    schedules           schedules: Delta and c under rates that change
    nesterov            nesterov: the same of Nesterov's method
    weight_decay        weight_decay: the same with coupled and decoupled decay
    coordinate_rates    coordinate_rates: the same with rates of coordinates and of layers
    balances            balances: the log-free identity of unequal layers, neurons, linear layers
    depth               depth: A, c and the minimiser of theta = u^D - v^D
    power_minimizer     depth: the same
    power_trajectory    depth: the same
    classification      classification: signs of nu, and the minimiser under margins
    max_margin          classification: no iterate has a larger normalised margin
    losses              none: definitions, which every run of another loss evaluates
    family              none: checks of single steps, which `dln.certify` reports
    small_lambda        small_lambda: threshold, drift, in discrete time too, and lambda -> 0
    curvature           curvature: the Hessian of F, and the sharpness where a run ends
    local_rates         local_rates: contraction at the end of a run, from the Hessian there
    reference           reference: the engine against the update as it is written
    initial_speed       none: it is a start, not a statement; every statement takes any start

Two more files have no counterpart there: `discretisation` (orders in eps and the acceleration rule,
of `dln_momentum.rates`) and `summaries` (the printed numbers of `dln_momentum.outputs`).
`own_method` has the theorem for the method of a config that is not the poster's, and `scope` says
which statements are about it.
`setting` holds the input, `measurements` the runs, `recorded` their trajectories and hypotheses,
`written_update` the second program, `family_run` and `written_method` those of the other members of
the family, `agreement` compares numbers, `statement` has the verdict, `statements` the order of
them all.
"""

from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.setting import Setting
from dln_momentum.verification.statement import Hypothesis, Statement, Verdict
from dln_momentum.verification.statements import statements

__all__ = ["Hypothesis", "Measurements", "Setting", "Statement", "Verdict", "statements"]
