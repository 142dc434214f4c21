// SPDX-License-Identifier: MIT
#include "check.hpp"

#include <algorithm>
#include <cmath>
#include <map>

namespace quality {

namespace {

/// What was measured, by the job's name: averaged over the texts.
class Results {
 public:
  Results(std::span<const Measured> all, std::size_t texts) {
    for (const Measured& one : all) {
      Quality& sum = by_name_[one.job->name];
      sum.cross_entropy += one.quality.cross_entropy / static_cast<double>(texts);
      sum.kl += one.quality.kl / static_cast<double>(texts);
    }
  }
  Quality operator()(const std::string& name) const { return by_name_.at(name); }

 private:
  std::map<std::string, Quality> by_name_;
};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

class Checks {
 public:
  explicit Checks(std::ostream& out) : out_(out) {}
  void expect(bool holds, const std::string& what) {
    out_ << (holds ? "holds:  " : "FAILS:  ") << what << std::endl;
    all_ = all_ && holds;
  }
  bool all() const { return all_; }

 private:
  std::ostream& out_;
  bool all_ = true;
};

std::string text(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.4f", value);
  return buffer;
}

std::vector<Job> some_of(std::vector<Job> jobs, const std::function<bool(const Job&)>& wanted) {
  std::erase_if(jobs, [&](const Job& job) { return !wanted(job); });
  return jobs;
}

}  // namespace

bool check_evidence(Evaluator& evaluator, const ExperimentOptions& options, std::ostream& out,
                    const std::function<void(const Measured&)>& done) {
  Checks checks(out);
  const std::size_t texts = evaluator.texts().size();
  double original = 0;
  for (std::size_t i = 0; i < texts; ++i) original += evaluator.baseline(i).cross_entropy / static_cast<double>(texts);
  out << "original: cross-entropy " << text(original) << std::endl;

  const std::vector<Job> alone = some_of(jobs_of("one_layer", evaluator, options), [](const Job& job) {
    return job.fields["method"] == "mean" || job.fields["method"] == "first" || job.fields["method"] == "random";
  });
  const Results one(run(alone, evaluator, done), texts);
  std::map<std::string, std::vector<double>> kl;
  bool random_worst = true;
  for (Index l = 0; l < evaluator.num_layers(); ++l) {
    const std::string layer = "layer " + std::to_string(l) + ", ";
    for (const char* method : {"mean", "first", "random"}) kl[method].push_back(one(layer + method).kl);
    random_worst = random_worst && kl["random"].back() > std::max(kl["mean"].back(), kl["first"].back());
  }
  const double mean = median(kl["mean"]), first = median(kl["first"]), random = median(kl["random"]);
  checks.expect(mean <= first && first <= random, "one layer to one KV head: median KL mean " + text(mean) +
                                                      ", first " + text(first) + ", random " + text(random) + " rises");
  checks.expect(random_worst, "random is the worst in every layer");

  const std::vector<Job> degrouping = jobs_of("degroup", evaluator, options);
  const Results groups(run(degrouping, evaluator, done), texts);
  constexpr double same = 1e-4;  // nats: float sums in another order
  for (const char* name : {"3 to 9 KV heads", "3 to 9, shuffled", "shuffled, then 9 to 3 by activations"}) {
    const double now = groups(name).cross_entropy;
    checks.expect(std::abs(now - original) < same,
                  std::string(name) + ": cross-entropy " + text(now) + " is the original's");
  }
  const double broken = groups("shuffled, then 9 to 3 neighbours").cross_entropy;
  checks.expect(broken > original + 1,
                "shuffled, then 9 to 3 neighbours: cross-entropy " + text(broken) + " is broken");

  const std::vector<Job> eight = some_of(jobs_of("layers", evaluator, options), [](const Job& job) {
    return job.name == "8 lowest, mean" || job.name == "8 highest, mean";
  });
  const Results layers(run(eight, evaluator, done), texts);
  const double low = layers("8 lowest, mean").kl, high = layers("8 highest, mean").kl;
  checks.expect(2 * low < high, "KL of the eight layers of lowest weight-sharing error " + text(low) +
                                    " is far below that of the highest " + text(high));
  return checks.all();
}

}  // namespace quality
