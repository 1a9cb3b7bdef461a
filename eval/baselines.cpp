// Naive forecasts and ridge regression.
#include "eval/baselines.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "core/error.h"
#include "core/gemm.h"
#include "core/parallel.h"
#include "eval/forecast_scores.h"

extern "C" void dsyevd_(const char* jobz, const char* uplo, const int* n, double* a, const int* lda, double* w,
                        double* work, const int* lwork, int* iwork, const int* liwork,
                        int* info);  // LAPACK, in OpenBLAS

namespace modrwkv {
namespace {

constexpr double kUntunedStrength = 1e-2;  // of the ridge, where no validation window can choose it

// forecast[b, h] = f(pointer to look-back b, h)
template <class F>
Tensor rowwise(const Tensor& past, int64_t horizon, F f) {
  const int64_t rows = past.size(0), lookback = past.size(1);
  Tensor y = Tensor::empty({rows, horizon});
  for (int64_t b = 0; b < rows; ++b) {
    const float* x = past.data<float>() + b * lookback;
    for (int64_t h = 0; h < horizon; ++h) y.data<float>()[b * horizon + h] = f(x, h);
  }
  return y;
}

Tensor matrix(int64_t rows, int64_t cols) { return Tensor::zeros({rows, cols}, DType::f64); }

// Sums over all training windows v of length W: gram = sum v v^T, sum = sum v. For each lag d a running sum
// over time of x[t] x[t + d] gives every entry (i, i + d).
struct Moments {
  Tensor gram;
  std::vector<double> sum;
  double count = 0;
};

Moments window_moments(const std::vector<ChannelSeries>& channels, int64_t W) {
  Moments m;
  m.gram = matrix(W, W);
  m.sum.assign(size_t(W), 0.0);
  for (const ChannelSeries& c : channels) {
    const int64_t T = c.train_end, N = T - W + 1;
    if (N <= 0) continue;
    m.count += double(N);
    std::vector<double> x(static_cast<size_t>(T));
    for (int64_t t = 0; t < T; ++t)
      x[size_t(t)] = std::isnan(c.values[size_t(t)]) ? 0.0 : double(c.values[size_t(t)]);
    double running = 0;
    for (int64_t t = 0; t < N; ++t) running += x[size_t(t)];
    for (int64_t i = 0; i < W; ++i) {
      m.sum[size_t(i)] += running;
      if (i + 1 < W) running += x[size_t(i + N)] - x[size_t(i)];
    }
    parallel_for(W, 8, [&](int64_t begin, int64_t end) {
      for (int64_t d = begin; d < end; ++d) {
        double s = 0;
        for (int64_t t = 0; t < N; ++t) s += x[size_t(t)] * x[size_t(t + d)];
        for (int64_t i = 0; i + d < W; ++i) {
          m.gram.data<double>()[i * W + i + d] += s;
          if (i + d + 1 < W) s += x[size_t(i + N)] * x[size_t(i + N + d)] - x[size_t(i)] * x[size_t(i + d)];
        }
      }
    });
  }
  double* g = m.gram.data<double>();
  for (int64_t i = 0; i < W; ++i) {
    for (int64_t j = 0; j < i; ++j) g[i * W + j] = g[j * W + i];
  }
  return m;
}

// v -> v - v[last] for all but row and column `last` themselves (which become zero), applied to both sides of
// the moments.
void subtract_last(Moments& m, int64_t last) {
  const int64_t W = int64_t(m.sum.size());
  double* g = m.gram.data<double>();
  for (int64_t i = 0; i < W; ++i) {
    const double x = g[i * W + last];
    for (int64_t j = 0; j < W; ++j) g[i * W + j] -= x;
  }
  for (int64_t j = 0; j < W; ++j) {
    const double x = g[last * W + j];
    for (int64_t i = 0; i < W; ++i) g[i * W + j] -= x;
  }
  const double x = m.sum[size_t(last)];
  for (double& s : m.sum) s -= x;
}

}  // namespace

Baseline last_value(int64_t horizon) {
  return {"last value", "last", [horizon](const Tensor& past) {
            const int64_t n = past.size(1);
            return rowwise(past, horizon, [n](const float* x, int64_t) { return x[n - 1]; });
          }};
}

Baseline look_back_mean(int64_t horizon) {
  return {"mean of the look-back", "mean", [horizon](const Tensor& past) {
            const int64_t n = past.size(1);
            return rowwise(past, horizon, [n](const float* x, int64_t) {
              double sum = 0;
              for (int64_t i = 0; i < n; ++i) sum += double(x[i]);
              return float(sum / double(n));
            });
          }};
}

Baseline seasonal_naive(int64_t season, int64_t horizon) {
  return {fmt::format("seasonal naive {}", season), "seasonal_naive", [season, horizon](const Tensor& past) {
            const int64_t n = past.size(1);
            require(season <= n, "seasonal naive: season {} is longer than the look-back of {}", season, n);
            return rowwise(past, horizon,
                           [n, season](const float* x, int64_t h) { return x[n - season + h % season]; });
          }};
}

Baseline seasonal_mean(int64_t season, int64_t horizon) {
  return {fmt::format("seasonal mean {}", season), "seasonal_mean", [season, horizon](const Tensor& past) {
            const int64_t n = past.size(1), k = n / season;
            require(k > 0, "seasonal mean: season {} is longer than the look-back of {}", season, n);
            return rowwise(past, horizon, [n, season, k](const float* x, int64_t h) {
              double sum = 0;
              for (int64_t s = 1; s <= k; ++s) sum += double(x[n - s * season + h % season]);
              return float(sum / double(k));
            });
          }};
}

Baseline ridge(const std::vector<ChannelSeries>& channels, int64_t L, int64_t H, bool remove_last,
               const std::string& where) {
  Moments m = window_moments(channels, L + H);
  require(m.count > 0, "{}: ridge: no training window of look-back {} and horizon {}", where, L, H);
  if (remove_last) subtract_last(m, L - 1);
  // Centred covariances: the bias is not penalised.
  const int64_t W = L + H;
  const double* g = m.gram.data<double>();
  Tensor xx = matrix(L, L), xy = matrix(L, H);
  for (int64_t i = 0; i < L; ++i) {
    for (int64_t j = 0; j < W; ++j) {
      const double c = g[i * W + j] / m.count - m.sum[size_t(i)] / m.count * m.sum[size_t(j)] / m.count;
      (j < L ? xx.data<double>()[i * L + j] : xy.data<double>()[i * H + j - L]) = c;
    }
  }
  // xx = V diag(w) V^T; LAPACK leaves the eigenvectors as the rows of the row-major array.
  std::vector<double> w(static_cast<size_t>(L)), work(1);
  std::vector<int> iwork(1);
  const int n = int(L);
  int lwork = -1, liwork = -1, info = 0;
  dsyevd_("V", "U", &n, xx.data<double>(), &n, w.data(), work.data(), &lwork, iwork.data(), &liwork, &info);
  lwork = int(work[0]);
  liwork = iwork[0];
  work.resize(size_t(lwork));
  iwork.resize(size_t(liwork));
  dsyevd_("V", "U", &n, xx.data<double>(), &n, w.data(), work.data(), &lwork, iwork.data(), &liwork, &info);
  require(info == 0, "{}: ridge: dsyevd returned {}", where, info);
  Tensor projected = matrix(L, H);
  gemm(xx, xy, projected);  // V^T xy

  struct Map {
    Tensor weight, bias;  // [L, H], [H] f32
  };
  const auto solve = [&](double lambda) {
    Tensor scaled = projected.clone(), weight = matrix(L, H);
    for (int64_t i = 0; i < L; ++i) {
      for (int64_t h = 0; h < H; ++h) scaled.data<double>()[i * H + h] /= std::max(w[size_t(i)], 0.0) + lambda;
    }
    gemm(xx, scaled, weight, {.trans_a = true});
    Tensor bias = matrix(1, H);
    for (int64_t h = 0; h < H; ++h) {
      double b = m.sum[size_t(L + h)] / m.count;
      for (int64_t i = 0; i < L; ++i) b -= m.sum[size_t(i)] / m.count * weight.data<double>()[i * H + h];
      bias.data<double>()[h] = b;
    }
    return Map{weight.to(DType::f32), bias.to(DType::f32).reshape({H})};
  };
  const auto apply = [L, H, remove_last](const Map& map, const Tensor& past) {
    Tensor x = past.clone(), y = Tensor::empty({past.size(0), H});
    const auto last = [&](int64_t b) { return past.data<float>()[b * L + L - 1]; };
    if (remove_last) {
      for (int64_t b = 0; b < x.size(0); ++b) {
        float* row = x.data<float>() + b * L;
        const float offset = last(b);
        for (int64_t i = 0; i < L; ++i) row[i] -= offset;
      }
    }
    gemm(x, map.weight, y, {}, &map.bias);
    if (remove_last) {
      for (int64_t i = 0; i < y.numel(); ++i) y.data<float>()[i] += last(i / H);
    }
    return y;
  };

  int64_t longest = 0;
  bool any = false;
  for (const ChannelSeries& c : channels) {
    longest = std::max(longest, c.val_end - c.train_end);
    any = any || std::max(c.train_end, L) + H <= c.val_end;
  }
  Map best = solve(kUntunedStrength);
  if (any) {
    const EvaluationWindows validation(channels, Part::validation, L, H, std::max<int64_t>(1, longest / 500),
                                       where);
    std::vector<Map> maps;
    for (const double lambda : {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0}) maps.push_back(solve(lambda));
    std::vector<ForecastScores> scores(maps.size());
    constexpr int64_t kBatch = 4096;  // a collection's windows do not fit into memory at once
    for (int64_t first = 0; first < validation.size(); first += kBatch) {
      const SeriesBatch batch = validation.batch(first, std::min(kBatch, validation.size() - first));
      for (size_t i = 0; i < maps.size(); ++i)
        scores[i].add(apply(maps[i], batch.past), batch.future, batch.mask);
    }
    double best_mse = INFINITY;
    for (size_t i = 0; i < maps.size(); ++i) {
      if (!(scores[i].mse() < best_mse)) continue;
      best_mse = scores[i].mse();
      best = maps[i];
    }
  }
  return {remove_last ? "ridge, last value removed" : "ridge", remove_last ? "nlinear" : "ridge",
          [best, apply](const Tensor& past) { return apply(best, past); }};
}

std::vector<Baseline> standard_baselines(const std::vector<ChannelSeries>& channels, int64_t L, int64_t H,
                                         int64_t season, const std::string& where) {
  std::vector<Baseline> all = {ridge(channels, L, H, false, where), ridge(channels, L, H, true, where)};
  if (season > 1 && season <= L) {
    all.push_back(seasonal_mean(season, H));
    all.push_back(seasonal_naive(season, H));
  }
  all.push_back(last_value(H));
  return all;
}

}  // namespace modrwkv
