// SPDX-License-Identifier: MIT
#include "experiments.hpp"

#include <map>
#include <memory>
#include <utility>

#include "conversions.hpp"
#include "headwise/regroup/key_driven/groups.hpp"
#include "llama/model/calibration.hpp"

namespace quality {

namespace {

using namespace headwise::regroup;
using Variant = Evaluator::Variant;

/// The jobs of one experiment as they are added.
class Jobs {
 public:
  Jobs(std::string experiment, Evaluator& evaluator, const ExperimentOptions& options)
      : experiment_(std::move(experiment)),
        evaluator_(evaluator),
        options_(options),
        convert_(evaluator, options.seed) {}

  std::vector<Job> take() { return std::move(jobs_); }

  void baseline() {
    add("original", {}, [] { return Variant{}; });
  }

  /// Each layer alone to one KV head.
  void one_layer() {
    for (const Method& method : kMethods)
      for (Index l = 0; l < evaluator_.num_layers(); ++l)
        add("layer " + std::to_string(l) + ", " + std::string(method.name), {{"layer", l}, {"method", method.name}},
            [convert = convert_, l, method] { return Variant{.changes = {convert.to_one(l, method)}}; });
  }

  /// Several layers together, by every method at equal bytes.
  void layers() {
    const std::vector<Index> order = convert_.layers_by_error();
    const auto some = [&](const char* which, Index count, const Method& method) {
      std::vector<Index> chosen = order;
      if (std::string_view(which) == "highest") std::ranges::reverse(chosen);
      chosen.resize(static_cast<std::size_t>(count));
      add(std::to_string(count) + " " + which + ", " + std::string(method.name),
          {{"method", std::string(method.name) + ", " + which}, {"layers", chosen}},
          [convert = convert_, chosen, method] { return convert.all_to_one(chosen, method); });
    };
    const Index all = evaluator_.num_layers(), eight = std::min<Index>(8, all);
    for (const Method& method : kMethods) some("lowest", eight, method);
    some("highest", eight, method_named("mean"));
    for (const Index count : {all / 15, all / 8, all / 2})
      if (count > 0) some("lowest", count, method_named("mean"));
    for (const char* name : {"mean", "first", "random"}) some("lowest", all, method_named(name));
  }

  /// More heads, shuffled, and back: over groups that are found again, and over those that lie side by side.
  void degrouping() {
    every_layer("3 to 9 KV heads", [](const Conversions&, const AttentionWeights& weights) {
      return degroup(weights, weights.num_heads);
    });
    scattered_layers("3 to 9, shuffled", {}, nullptr);
    const auto found = [](const Eigen::MatrixXd& gram, Index groups) {
      return symmetric_search(gram, groups).partition;
    };
    const auto neighbours = [](const Eigen::MatrixXd& gram, Index groups) {
      return Partition::neighbours(gram.rows(), groups);
    };
    scattered_layers("shuffled, then 9 to 3 by activations", {}, found);
    scattered_layers("shuffled, then 9 to 3 neighbours", {}, neighbours);
  }

  /// Points of QCQA's front, and as many KV heads taken from the layers as they come.
  void qcqa() {
    auto fronts = std::make_shared<std::vector<LayerFront>>();
    for (Index l = 0; l < evaluator_.num_layers(); ++l) fronts->push_back(exhaustive_front(convert_.distances(l)));
    const MixedFront front = mixed_layers_front(*fronts);
    for (const double capacity : {0.9, 0.8, 0.7, 0.6, 0.5, 0.4}) {
      const MixedFront::Point* best = nullptr;
      for (const auto& point : front)
        if (point.objectives[kCapacity] <= capacity) best = &point;
      if (!best) continue;
      add("front at " + std::to_string(static_cast<int>(std::lround(100 * best->objectives[kCapacity]))) + " %",
          {{"method", "QCQA"}, {"capacity", best->objectives[kCapacity]}, {"error", best->objectives[kSharingError]}},
          [convert = convert_, fronts, solution = best->solution, evaluator = &evaluator_] {
            Variant variant;
            for (std::size_t l = 0; l < fronts->size(); ++l) {
              const Partition& partition = (*fronts)[l][solution[l]].solution;
              const auto layer = static_cast<Index>(l);
              if (partition.num_groups() < partition.num_heads())
                variant.changes.push_back(
                    {layer, convert.pooled(evaluator->attention(layer), partition, kMethods[0], layer)});
            }
            return variant;
          });
      first_layers(best->objectives[kCapacity]);
    }
  }

  /// Two KV heads out of nine, by every way to group them.
  void asym() {
    std::vector<Index> lowest = convert_.layers_by_error();
    lowest.resize(std::min<std::size_t>(8, lowest.size()));
    const std::pair<const char*, GroupBy> ways[] = {
        {"neighbours", [](const Eigen::MatrixXd& gram, Index n) { return neighbour_groups(gram, n).partition; }},
        {"symmetric", [](const Eigen::MatrixXd& gram, Index n) { return symmetric_search(gram, n).partition; }},
        {"asymmetric", [](const Eigen::MatrixXd& gram, Index n) { return asymmetric_search(gram, n).partition; }}};
    for (const auto& [name, group] : ways) scattered_layers("8 lowest, 9 to 2, " + std::string(name), lowest, group, 2);
    for (const auto& [name, group] : ways) scattered_layers("all layers, 9 to 2, " + std::string(name), {}, group, 2);
  }

  /// Keys and values in fewer bits, as they are and with keys that were rotated before.
  void cache() {
    using enum headwise::Storage;
    for (const auto& [keys, values] : {std::pair{f16, f16},
                                       {bf16, bf16},
                                       {e4m3, e4m3},
                                       {e5m2, e5m2},
                                       {int8, int8},
                                       {int8, int4},
                                       {int4, int8},
                                       {int4, int4}})
      for (const bool hadamard : {false, true}) {
        if (hadamard && keys != int8 && keys != int4) continue;
        std::string name(name_of(keys));
        if (keys != values) name += " keys, " + std::string(name_of(values)) + " values";
        if (hadamard) name += ", Hadamard";
        const headwise::CacheOptions options{.key_storage = keys, .value_storage = values, .hadamard_keys = hadamard};
        add(name, {{"method", name}, {"hadamard", hadamard}}, [options] { return Variant{.cache = options}; });
      }
  }

  /// Query heads dealt to KV heads by the norms of the keys, 64 tokens at a time.
  void key_driven() {
    struct Mode {
      const char* name;
      KeyDrivenOptions options;
    };
    static const Mode modes[] = {
        {"KDGQA, ratio", {}},
        {"KDGQA, min-max", {.mode = KeyDrivenMode::authors_minmax}},
        {"KDGQA, ratio, frozen", {.scope = KeyDrivenScope::frozen}},
        {"DGQA, diff", {.dynamics = KeyDrivenDynamics::diff}},
        {"DGQA, ema", {.dynamics = KeyDrivenDynamics::ema}},
        {"DGQA, ema, window 4", {.dynamics = KeyDrivenDynamics::ema, .window = 4}},
    };
    add("equal groups", {{"chunk", 64}}, [] { return Variant{.chunk = 64}; });
    for (const Mode& mode : modes)
      add(mode.name, {{"chunk", 64}}, [&mode] { return Variant{.key_driven = &mode.options, .chunk = 64}; });
  }

  /// Layers that read the keys and values of others.
  void cla() {
    const Index layers = evaluator_.num_layers();
    for (Index l = 1; l < layers; ++l) {
      std::vector<Index> sources(static_cast<std::size_t>(layers));
      std::iota(sources.begin(), sources.end(), Index{0});
      sources[static_cast<std::size_t>(l)] = l - 1;
      add("layer " + std::to_string(l) + " reads layer " + std::to_string(l - 1), {{"layer", l}, {"method", "pair"}},
          [sources] { return Variant{.sharing = headwise::KvSharing::from_sources(sources)}; });
    }
    for (const char* name : {"cla2", "cla3", "keep-ends"})
      if (layers >= 3)
        add(name, {{"method", "pattern"}},
            [name, layers] { return Variant{.sharing = headwise::KvSharing::by_name(name, layers)}; });
  }

 private:
  using GroupBy = Partition (*)(const Eigen::MatrixXd& gram, Index groups);

  void add(std::string name, nlohmann::json fields, std::function<Variant()> make) {
    if (fields.is_null()) fields = nlohmann::json::object();
    jobs_.push_back({experiment_, std::move(name), std::move(fields), std::move(make)});
  }

  /// Every layer changed by f(conversions, its weights).
  template <class F>
  void every_layer(std::string name, F f) {
    add(std::move(name), {}, [f, convert = convert_, evaluator = &evaluator_] {
      Variant variant;
      for (Index l = 0; l < evaluator->num_layers(); ++l)
        variant.changes.push_back({l, f(convert, evaluator->attention(l))});
      return variant;
    });
  }

  /// The shuffled layers (none: all) as they are (no `group`), or pooled over the groups that it finds.
  void scattered_layers(std::string name, std::vector<Index> layers, GroupBy group, Index groups = 0) {
    if (layers.empty()) {
      layers.resize(static_cast<std::size_t>(evaluator_.num_layers()));
      std::iota(layers.begin(), layers.end(), Index{0});
    }
    add(std::move(name), {}, [scattered = shared(), layers, group, groups] {
      Variant variant;
      for (const Index l : layers) {
        const AttentionWeights& weights = scattered->weights[static_cast<std::size_t>(l)];
        if (!group) {
          variant.changes.push_back({l, weights});
          continue;
        }
        const Index count = groups > 0 ? groups : scattered->evaluator->attention(l).num_kv_heads;
        const Partition partition = group(scattered->statistics[static_cast<std::size_t>(l)].gram().balanced(), count);
        variant.changes.push_back({l, make_contiguous(scattered->convert.pooled(weights, partition, kMethods[0], l))});
      }
      return variant;
    });
  }

  /// As many KV heads as `capacity` leaves, taken from the first layers on.
  void first_layers(double capacity) {
    Index heads = 0;
    for (const AttentionWeights& weights : evaluator_.attention()) heads += weights.num_kv_heads;
    auto away = heads - static_cast<Index>(std::lround(capacity * static_cast<double>(heads)));
    std::vector<std::pair<Index, Index>> groups;  // layer, KV heads that are left
    for (Index l = 0; l < evaluator_.num_layers() && away > 0; ++l) {
      const Index have = evaluator_.attention(l).num_kv_heads, less = std::min(away, have - 1);
      groups.emplace_back(l, have - less);
      away -= less;
    }
    double error = 0;
    for (const auto& [l, left] : groups)
      error += convert_.distances(l).error(Partition::neighbours(evaluator_.attention(l).num_kv_heads, left));
    add("first layers at " + std::to_string(static_cast<int>(std::lround(100 * capacity))) + " %",
        {{"method", "first layers"}, {"capacity", capacity}, {"error", error}},
        [groups, convert = convert_, evaluator = &evaluator_] {
          Variant variant;
          for (const auto& [l, left] : groups) {
            const AttentionWeights& weights = evaluator->attention(l);
            variant.changes.push_back(
                {l, convert.pooled(weights, Partition::neighbours(weights.num_kv_heads, left), kMethods[0], l)});
          }
          return variant;
        });
  }

  /// The shuffled layers and their activations, made once for all jobs.
  struct Scattered {
    Evaluator* evaluator;
    Conversions convert;
    std::vector<AttentionWeights> weights;         // [layer]
    std::vector<ActivationStatistics> statistics;  // [layer]
  };
  std::shared_ptr<const Scattered> shared() {
    if (scattered_) return scattered_;
    auto made = std::make_shared<Scattered>(Scattered{&evaluator_, convert_, {}, {}});
    for (Index l = 0; l < evaluator_.num_layers(); ++l) made->weights.push_back(convert_.scattered(l));
    constexpr Index context = 512;
    made->statistics =
        llama::calibrate(evaluator_.model(), made->weights, options_.calibration, context, evaluator_.pool());
    scattered_ = std::move(made);
    return scattered_;
  }

  std::string experiment_;
  Evaluator& evaluator_;
  const ExperimentOptions& options_;
  Conversions convert_;
  std::shared_ptr<const Scattered> scattered_;
  std::vector<Job> jobs_;
};

constexpr std::string_view kNames[] = {"baseline", "one_layer",  "layers", "degroup", "qcqa",
                                       "asym",     "key_driven", "cla",    "cache"};

}  // namespace

std::span<const std::string_view> experiment_names() { return kNames; }

std::vector<Job> jobs_of(std::string_view experiment, Evaluator& evaluator, const ExperimentOptions& options) {
  Jobs jobs{std::string(experiment), evaluator, options};
  const std::map<std::string_view, void (Jobs::*)()> known = {{"baseline", &Jobs::baseline},
                                                              {"one_layer", &Jobs::one_layer},
                                                              {"layers", &Jobs::layers},
                                                              {"degroup", &Jobs::degrouping},
                                                              {"qcqa", &Jobs::qcqa},
                                                              {"asym", &Jobs::asym},
                                                              {"key_driven", &Jobs::key_driven},
                                                              {"cla", &Jobs::cla},
                                                              {"cache", &Jobs::cache}};
  const auto found = known.find(experiment);
  headwise::require(found != known.end(), "experiment (", experiment, ") must be one that --help lists");
  (jobs.*found->second)();
  return jobs.take();
}

std::vector<Measured> run(std::span<const Job> jobs, Evaluator& evaluator,
                          const std::function<void(const Measured&)>& done) {
  std::vector<Measured> results;
  for (const Job& job : jobs) {
    const Variant variant = job.make();
    for (std::size_t text = 0; text < evaluator.texts().size(); ++text) {
      const bool original =
          variant.changes.empty() && variant.chunk == 0 && variant.sharing.num_layers() <= 1 && !variant.cache;
      const Quality quality = original ? evaluator.baseline(text) : evaluator.measure(variant, text);
      results.push_back({&job, text, quality, evaluator.kv_bytes_per_token(variant)});
      if (done) done(results.back());
    }
  }
  return results;
}

}  // namespace quality
