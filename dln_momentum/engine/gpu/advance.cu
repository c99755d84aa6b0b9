// A block of steps of many runs that stay in registers from the first step to the last.
//
// Compiled at run time for one problem size: N, D, PARTS, SUMMING, NOISE and WEIGHTS are macros that
// kernel.py sets. What is computed is what torch_kernel.py says; scale and names are those of State.
//
// A group of PARTS warps advances 8 runs. The two products of a step are made by the matrix units
// from tiles of 8 x 8, theta' A^T and r A with the runs as rows. In a tile of a result a lane holds
// the entries (lane / 4, 2 (lane % 4) + 0 and + 1); of a left factor with 4 columns it gives the
// entry (lane / 4, lane % 4). So the first entries of all lanes are the columns 0, 2, 4, 6 of their
// tile and the second ones 1, 3, 5, 7: a product that takes the rows of its right factor in that
// order takes its left factor as the product before it left it, and nothing is exchanged between
// lanes. Every lane keeps w, p and the sums of "its" coordinates of one run. Warps of a group share
// the column tiles of A; only the residual, a sum over all of them, goes through shared memory.

typedef long long Integer;

constexpr int EIGHT = 8, LANES = 32, CHECK_EVERY = 10;
constexpr int ROW_TILES = (N + EIGHT - 1) / EIGHT, COLUMN_TILES = (D + EIGHT - 1) / EIGHT;
constexpr int OWN = (COLUMN_TILES + PARTS - 1) / PARTS;       // column tiles of a warp, at most
constexpr int FULL = COLUMN_TILES - (OWN - 1) * PARTS;        // warps that have so many
constexpr int OWN_ROWS = (ROW_TILES + PARTS - 1) / PARTS;     // row tiles whose sums a warp keeps
constexpr int NOT_SUMMED = 0, TELESCOPED = 1, DIRECT = 2;           // values of SUMMING
constexpr int RUNNING = 0, CONVERGED = 1, DIVERGED = 2;       // Status

// c += a b for a tile of 8 runs by 8 columns and 4 terms of the sum
__device__ __forceinline__ void multiply_add(double (&c)[2], double a, double b) {
    asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
        : "+d"(c[0]), "+d"(c[1]) : "d"(a), "d"(b));
}

__device__ __forceinline__ void meet(int group) {
    if (PARTS == 1) __syncwarp();
    else asm volatile("bar.sync %0, %1;" :: "r"(group + 1), "n"(PARTS * LANES) : "memory");
}

__device__ __forceinline__ double estimate(double x) {
    double r;
    asm("rcp.approx.ftz.f64 %0, %1;" : "=d"(r) : "d"(x));
    return r;
}

// 1/x to an ulp for an x far from the ends of float64, by an estimate r of 20 bits and
// r (1 + e + e^2), e = 1 - x r
__device__ __forceinline__ double reciprocal(double x) {
    const double r = estimate(x), e = fma(-x, r, 1.0);
    return fma(r, fma(e, e, e), r);
}

// not 0 unless |x| is within 2^+-256; see LARGEST_EXPONENT of the kernels for a CPU
__device__ __forceinline__ unsigned beyond(double x) {
    return (unsigned(__double2hiint(x)) - ((1023u - 256u) << 20)) & (3u << 29);
}

__device__ __forceinline__ unsigned negative(double x) {
    return unsigned(__double2hiint(x)) >> 31;
}

// (w_{k+1} - w_k) (1/w_k - beta/w_{k+1}) where w_k w_{k+1} may be too large or too small a number;
// 1/0 and 1/inf are what they are, subnormal numbers count as 0
__device__ __forceinline__ double telescoped_term(double w, double next, double beta) {
    const double step = next - w, of_old = reciprocal(w), of_next = reciprocal(next);
    return step * (isnan(of_old) ? estimate(w) : of_old)
        - beta * (step * (isnan(of_next) ? estimate(next) : of_next));
}

// [r(w_{k+1}/w_k) + beta r(w_k/w_{k+1})]/(1-beta), term by term
__device__ __forceinline__ double direct_term(double w, double next, double beta) {
    double step = next - w, forward = step / w, backward = -step / next;
    double log_ratio = forward > -0.5 ? log1p(forward) : log(fabs(next / w));
    return ((forward - log_ratio) + beta * (backward + log_ratio)) / (1 - beta);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) advance(
    const double* A,                // [N, D]
    const double* target,           // [R, N]
    const double* beta_of,          // [R]
    const double* loss_scale,       // 2 gamma^2, [R]
    const double* noise_scale,      // [R]
    const double* ceiling,          // [R]
    const double* tol,              // one number
    const Integer* first,           // the step that the runs are at, one number
    const Integer* runs,            // which runs, [count]
    const double* noise,            // [steps, count or 1, N]
    const double* weights,          // [steps, count or 1, N]
    double* w_of, double* p_of,     // [2, R, D]
    double* sums_of,                // [2, R, D]
    double* products_of,            // [R, D]
    double* residual_sum_of,        // [R, N]
    Integer* sign_changes_of, double* loss_of, Integer* status_of, Integer* steps_of,  // [R]
    int R, int count, int steps, int noise_of_runs, int weights_of_runs)
{
    extern __shared__ double2 shared[];
    double2* forward = shared;                                       // A^T for theta' A^T
    double2* backward = forward + COLUMN_TILES * ROW_TILES * LANES;  // A for r A
    double2* room = backward + COLUMN_TILES * ROW_TILES * LANES;

    const int groups = blockDim.x / (PARTS * LANES);
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
    const int part = warp % PARTS, group = warp / PARTS;
    const int row = lane / 4, pair = 2 * (lane % 4);
    double2* minus_target = room + group * ROW_TILES * LANES + lane;
    double2* partial = room + (groups + 2 * group * PARTS) * ROW_TILES * LANES + lane;

    for (int i = threadIdx.x; i < COLUMN_TILES * ROW_TILES * LANES; i += blockDim.x) {
        int l = i % LANES, j = i / LANES % ROW_TILES, t = i / LANES / ROW_TILES;
        auto at = [&](int n, int d) { return n < N && d < D ? A[n * D + d] : 0.0; };
        int across = EIGHT * j + l / 4, along = EIGHT * t + 2 * (l % 4);
        forward[i] = make_double2(at(across, along), at(across, along + 1));
        across = EIGHT * t + l / 4, along = EIGHT * j + 2 * (l % 4);
        backward[i] = make_double2(at(along, across), at(along + 1, across));
    }
    __syncthreads();

    const int place = (blockIdx.x * groups + group) * EIGHT + row;
    const Integer run = place < count ? runs[place] : 0;
    bool live = place < count && status_of[run] == RUNNING;
    const double beta = live ? beta_of[run] : 0.0;
    const Integer start = *first;
    const int offset = int(start % CHECK_EVERY);

    // what pads a tile, and a run that has ended, stands still: 1 = beta + (1 - beta), theta = 0
    double w[2][OWN][2], p[2][OWN][2], sums[2][OWN][2], products[OWN][2];
    double residual_sum[OWN_ROWS][2];
    unsigned changes = 0;
    auto owns = [&](int c) { return c < OWN - 1 || part < FULL; };
    auto column = [&](int c, int e) { return EIGHT * (c * PARTS + part) + pair + e; };
    auto is_row = [&](int j, int e) { return EIGHT * j + pair + e < N; };
    #pragma unroll
    for (int c = 0; c < OWN; ++c)
        #pragma unroll
        for (int e = 0; e < 2; ++e) {
            const int d = column(c, e);
            const bool here = live && d < D;
            products[c][e] = here && SUMMING != NOT_SUMMED ? products_of[run * D + d] : 0.0;
            #pragma unroll
            for (int k = 0; k < 2; ++k) {
                const Integer at = (Integer(k) * R + run) * D + d;
                w[k][c][e] = here ? w_of[at] : 1.0;
                p[k][c][e] = here ? p_of[at] : 1.0 - beta;
                sums[k][c][e] = here && SUMMING != NOT_SUMMED ? sums_of[at] : 0.0;
            }
        }
    #pragma unroll
    for (int i = 0; i < OWN_ROWS; ++i)
        #pragma unroll
        for (int e = 0; e < 2; ++e) {
            const int n = EIGHT * (i * PARTS + part) + pair + e;
            residual_sum[i][e] = live && n < N ? residual_sum_of[run * N + n] : 0.0;
        }
    if (part == 0)
        #pragma unroll
        for (int j = 0; j < ROW_TILES; ++j) {
            auto at = [&](int e) { return live && is_row(j, e) ? -target[run * N + 8 * j + pair + e] : 0.0; };
            minus_target[j * LANES] = make_double2(at(0), at(1));
        }

    for (int step = 0;; ++step) {
        __syncwarp();  // the matrix units take whole warps
        double residual[ROW_TILES][2];
        #pragma unroll
        for (int j = 0; j < ROW_TILES; ++j) {
            double2 from = part == 0 ? minus_target[j * LANES] : make_double2(0.0, 0.0);
            residual[j][0] = from.x, residual[j][1] = from.y;
        }
        #pragma unroll
        for (int c = 0; c < OWN; ++c) {
            if (!owns(c)) continue;
            double theta[2];
            #pragma unroll
            for (int e = 0; e < 2; ++e)
                theta[e] = (w[0][c][e] - w[1][c][e]) * (w[0][c][e] + w[1][c][e]);
            const double2* tile = forward + (c * PARTS + part) * ROW_TILES * LANES + lane;
            #pragma unroll
            for (int j = 0; j < ROW_TILES; ++j) {
                const double2 a = tile[j * LANES];
                multiply_add(residual[j], theta[0], a.x);
                multiply_add(residual[j], theta[1], a.y);
            }
        }
        if (PARTS > 1) {
            double2* here = partial + (step % 2) * PARTS * ROW_TILES * LANES;
            #pragma unroll
            for (int j = 0; j < ROW_TILES; ++j)
                here[(part * ROW_TILES + j) * LANES] = make_double2(residual[j][0], residual[j][1]);
            meet(group);
            #pragma unroll
            for (int j = 0; j < ROW_TILES; ++j) {
                residual[j][0] = residual[j][1] = 0.0;
                #pragma unroll
                for (int other = 0; other < PARTS; ++other) {
                    const double2 of = here[(other * ROW_TILES + j) * LANES];
                    residual[j][0] += of.x, residual[j][1] += of.y;
                }
            }
        }
        // a row of padding would make nan of an infinite theta
        #pragma unroll
        for (int e = 0; e < 2; ++e)
            if (!is_row(ROW_TILES - 1, e)) residual[ROW_TILES - 1][e] = 0.0;

        const bool last = step == steps;
        if (last || (offset + step) % CHECK_EVERY == 0) {
            double loss = 0.0;
            #pragma unroll
            for (int j = 0; j < ROW_TILES; ++j)
                loss = fma(residual[j][1], residual[j][1], fma(residual[j][0], residual[j][0], loss));
            loss += __shfl_xor_sync(~0u, loss, 1);
            loss += __shfl_xor_sync(~0u, loss, 2);
            if (live) {
                // hides from the compiler that addresses are the same at each check: it would keep
                // them in registers
                Integer at_run = run;
                asm volatile("" : "+l"(at_run));
                loss /= loss_scale[at_run];
                int verdict = RUNNING;
                if (!last) verdict = loss <= *tol ? CONVERGED : loss <= ceiling[at_run] ? RUNNING : DIVERGED;
                if (last || verdict != RUNNING) {
                    #pragma unroll
                    for (int c = 0; c < OWN; ++c)
                        #pragma unroll
                        for (int e = 0; e < 2; ++e) {
                            const int d = column(c, e);
                            const bool here = owns(c) && d < D;
                            if (here && SUMMING != NOT_SUMMED) products_of[at_run * D + d] = products[c][e];
                            #pragma unroll
                            for (int k = 0; k < 2; ++k) {
                                const Integer at = (Integer(k) * R + at_run) * D + d;
                                if (here) w_of[at] = w[k][c][e], p_of[at] = p[k][c][e];
                                if (here && SUMMING != NOT_SUMMED) sums_of[at] = sums[k][c][e];
                                w[k][c][e] = 1.0, p[k][c][e] = 1.0 - beta;
                            }
                        }
                    #pragma unroll
                    for (int i = 0; i < OWN_ROWS; ++i)
                        #pragma unroll
                        for (int e = 0; e < 2; ++e) {
                            const int n = EIGHT * (i * PARTS + part) + pair + e;
                            if (n < N) residual_sum_of[at_run * N + n] = residual_sum[i][e];
                        }
                    atomicAdd((unsigned long long*)(sign_changes_of + at_run), (unsigned long long)changes);
                    if (part == 0) {
                        #pragma unroll
                        for (int j = 0; j < ROW_TILES; ++j)
                            minus_target[j * LANES] = make_double2(0.0, 0.0);
                        if (pair == 0) {
                            loss_of[at_run] = loss, steps_of[at_run] = start + step;
                            if (verdict != RUNNING) status_of[at_run] = verdict;
                        }
                    }
                    #pragma unroll
                    for (int j = 0; j < ROW_TILES; ++j) residual[j][0] = residual[j][1] = 0.0;
                    live = false;
                }
            }
            if (!__any_sync(~0u, live)) break;
        }
        if (NOISE || WEIGHTS)
            #pragma unroll
            for (int j = 0; j < ROW_TILES; ++j)
                #pragma unroll
                for (int e = 0; e < 2; ++e) {
                    if (!live || !is_row(j, e)) continue;
                    const int n = EIGHT * j + pair + e;
                    auto of = [&](const double* drawn, int runs_of) {
                        return drawn[runs_of ? (Integer(step) * count + place) * N + n : Integer(step) * N + n];
                    };
                    if (NOISE) residual[j][e] = fma(-noise_scale[run], of(noise, noise_of_runs), residual[j][e]);
                    if (WEIGHTS) residual[j][e] *= of(weights, weights_of_runs);
                }
        #pragma unroll
        for (int j = 0; j < ROW_TILES; ++j)
            if (j % PARTS == part) {
                residual_sum[j / PARTS][0] += residual[j][0];
                residual_sum[j / PARTS][1] += residual[j][1];
            }

        #pragma unroll
        for (int c = 0; c < OWN; ++c) {
            if (!owns(c)) continue;
            double gradient[2] = {0.0, 0.0};
            const double2* tile = backward + (c * PARTS + part) * ROW_TILES * LANES + lane;
            #pragma unroll
            for (int j = 0; j < ROW_TILES; ++j) {
                const double2 a = tile[j * LANES];
                multiply_add(gradient, residual[j][0], a.x);
                multiply_add(gradient, residual[j][1], a.y);
            }
            #pragma unroll
            for (int e = 0; e < 2; ++e) {
                const double g = D % EIGHT == 0 || column(c, e) < D ? gradient[e] : 0.0;
                double old[2], next[2], step_of[2];
                #pragma unroll
                for (int k = 0; k < 2; ++k) {
                    old[k] = w[k][c][e];
                    p[k][c][e] = fma(k == 0 ? -g : g, old[k], p[k][c][e]);
                    next[k] = fma(beta, old[k], p[k][c][e]);
                    step_of[k] = next[k] - old[k];
                    w[k][c][e] = next[k];
                }
                if (SUMMING != NOT_SUMMED) products[c][e] = fma(step_of[0], step_of[1], products[c][e]);
                if (SUMMING == TELESCOPED) {
                    const double b[2] = {old[0] * next[0], old[1] * next[1]};
                    if (__builtin_expect(beyond(b[0]) | beyond(b[1]), 0)) {
                        #pragma unroll
                        for (int k = 0; k < 2; ++k) {
                            sums[k][c][e] += telescoped_term(old[k], next[k], beta);
                            changes += negative(old[k]) ^ negative(next[k]);
                        }
                    } else {
                        #pragma unroll
                        for (int k = 0; k < 2; ++k) {
                            sums[k][c][e] = fma(step_of[k] * p[k][c][e], reciprocal(b[k]), sums[k][c][e]);
                            changes += negative(b[k]);
                        }
                    }
                } else {
                    #pragma unroll
                    for (int k = 0; k < 2; ++k) {
                        if (SUMMING == DIRECT) sums[k][c][e] += direct_term(old[k], next[k], beta);
                        changes += negative(old[k]) ^ negative(next[k]);
                    }
                }
            }
        }
    }
}
