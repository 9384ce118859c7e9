function showModels() {}
function showData() {}
