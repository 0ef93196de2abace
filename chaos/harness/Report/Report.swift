// What `--report DIR` writes beside the history: the verdict, the nodes' logs, and a page for people.

import Base

enum Report {
  static func write(
    _ result: ChaosResult, places: ClusterPlaces, to directory: String
  ) throws(ChaosError) {
    try ClusterFiles.write(result.json + "\n", to: "\(directory)/verdict.json")
    try ClusterFiles.write(ReportPage(result: result).html, to: "\(directory)/report.html")
    try ClusterFiles.makeDirectory("\(directory)/logs")
    for name in try ClusterFiles.names(in: "\(places.directory)/logs") {
      try ClusterFiles.copy("\(places.directory)/logs/\(name)", to: "\(directory)/logs/\(name)")
    }
  }
}
