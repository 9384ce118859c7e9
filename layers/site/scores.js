function showScores() {}
function showLatency() {}
