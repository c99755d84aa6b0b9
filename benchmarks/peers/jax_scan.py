"""JAX: ``lax.scan`` over steps of ``vmap`` over runs, compiled whole.

Once with the algebra that the engine uses (w_+-, a gradient by hand, S from the sum of the
residuals), and once as one would write it first (autograd of u and v, S summed directly).
"""

from __future__ import annotations

from typing import Any

import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]

from benchmarks.setup import Advance, Task

jax.config.update("jax_enable_x64", True)


def by_hand(task: Task) -> Advance:
    """Hand-written gradient, sums in n-space, and the loss at every step."""
    A, target = _scaled(task)
    gamma, beta = task.gamma, task.beta

    def step(state: Any, _: None) -> tuple[Any, None]:
        w_plus, w_minus, p_plus, p_minus, residual_sum, _ = state
        residual = A @ ((w_plus**2 - w_minus**2) / 4) - target
        gradient = gamma * (A.T @ residual)
        p_plus, p_minus = p_plus - gradient * w_plus, p_minus + gradient * w_minus
        w_plus, w_minus = p_plus + beta * w_plus, p_minus + beta * w_minus
        loss = residual @ residual / 2
        return (w_plus, w_minus, p_plus, p_minus, residual_sum + residual, loss), None

    u, v = (jnp.asarray(w.numpy()) for w in task.start())
    w_plus, w_minus = u + v, u - v
    zeros = jnp.zeros((task.runs, task.n))
    rest = 1 - task.beta
    state = (w_plus, w_minus, rest * w_plus, rest * w_minus, zeros, jnp.zeros(task.runs))
    return _scanned(step, state)


def by_autograd(task: Task) -> Advance:
    """Autograd of the network's loss, and the direct sum of S at every step."""
    A, target = _scaled(task)

    def loss_of(u: Any, v: Any) -> Any:
        return jnp.sum((A @ (u * v) - target) ** 2) / 2

    def step(state: Any, _: None) -> tuple[Any, None]:
        u, v, u_before, v_before, s_plus, s_minus, _ = state
        loss, (grad_u, grad_v) = jax.value_and_grad(loss_of, (0, 1))(u, v)
        u_next = u - task.gamma * grad_u + task.beta * (u - u_before)
        v_next = v - task.gamma * grad_v + task.beta * (v - v_before)
        s_plus = s_plus + _increment(u + v, u_next + v_next, task.beta)
        s_minus = s_minus + _increment(u - v, u_next - v_next, task.beta)
        return (u_next, v_next, u, v, s_plus, s_minus, loss), None

    u, v = (jnp.asarray(w.numpy()) for w in task.start())
    zeros = jnp.zeros_like(u)
    return _scanned(step, (u, v, u, v, zeros, zeros, jnp.zeros(task.runs)))


def _scaled(task: Task) -> tuple[Any, Any]:
    root = task.n**0.5
    return jnp.asarray(task.problem.X.numpy() / root), jnp.asarray(task.problem.y.numpy() / root)


def _increment(w: Any, w_next: Any, beta: float) -> Any:
    delta, back = (w_next - w) / w, (w - w_next) / w_next
    return ((delta - jnp.log1p(delta)) + beta * (back - jnp.log1p(back))) / (1 - beta)


def _scanned(step: Any, state: Any) -> Advance:
    def block(state: Any, steps: int) -> Any:
        return jax.vmap(lambda run: jax.lax.scan(step, run, None, length=steps)[0])(state)

    compiled = jax.jit(block, static_argnums=1, donate_argnums=0)
    # nothing else may hold what is donated
    state = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state)

    def advance(steps: int) -> None:
        nonlocal state
        state = jax.block_until_ready(compiled(state, steps))

    return advance
